"""Watching the checkpoints of a training: each valid one is yielded once, up to the last."""

import pathlib

import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker.continuous_eval import CheckpointWatcher
from sasa_tf.training.resilience import checkpoints


class Training:
  """Writes the next checkpoint on each call of `sleep`, which also advances the clock."""

  def __init__(self, directory, steps=(), max_to_keep=5):
    step = tf.Variable(0, dtype=tf.int64)
    self.directory = directory
    self.now = 0.0
    self._step = step
    self._steps = list(steps)
    self._manager = tf.train.CheckpointManager(
      tf.train.Checkpoint(global_step=step, weights=tf.Variable(tf.range(100.0))),
      str(directory),
      max_to_keep,
    )

  def write(self, step):
    self._step.assign(step)
    self._manager.save(checkpoint_number=step)

  def sleep(self, seconds):
    self.now += seconds
    if self._steps:
      self.write(self._steps.pop(0))

  def watcher(self, **arguments):
    return CheckpointWatcher(
      str(self.directory), timeout=10, sleep=self.sleep, clock=lambda: self.now, **arguments
    )


def steps(checkpoints):
  return [int(pathlib.Path(path).name.removeprefix("ckpt-")) for path in checkpoints]


def test_each_checkpoint_is_yielded_once_until_the_last_step(tmp_path, capsys):
  training = Training(tmp_path / "run", steps=[2, 4, 6])
  watcher = training.watcher()
  watcher.wait_for_first()
  assert steps(watcher.checkpoints_until(6)) == [2, 4, 6]
  assert training.now == 6
  assert f"waiting for a checkpoint in {tmp_path}/run" in capsys.readouterr().out


def test_existing_checkpoints_are_yielded_in_order(tmp_path):
  training = Training(tmp_path, steps=[30])
  for step in (5, 10, 20):
    training.write(step)
  assert steps(training.watcher().checkpoints_until(30)) == [5, 10, 20, 30]


def test_slow_evaluator_skips_deleted_checkpoints(tmp_path):
  training = Training(tmp_path, max_to_keep=2)
  training.write(1)
  seen = []
  for checkpoint in training.watcher().checkpoints_until(5):
    seen += steps([checkpoint])
    if seen == [1]:
      for step in (2, 3, 4, 5):
        training.write(step)
  assert seen == [1, 4, 5]


def test_checkpoint_deleted_during_the_check_is_reported(tmp_path, capsys, monkeypatch):
  training = Training(tmp_path, max_to_keep=1)
  training.write(1)
  find_corruption = checkpoints.find_corruption

  def slow_find_corruption(checkpoint):
    if checkpoint.endswith("ckpt-1"):
      training.write(2)
    return find_corruption(checkpoint)

  monkeypatch.setattr(checkpoints, "find_corruption", slow_find_corruption)
  assert steps(training.watcher().checkpoints_until(2)) == [2]
  assert "ckpt-1 was deleted before it was evaluated" in capsys.readouterr().err


def test_corrupt_and_unfinished_checkpoints_are_not_evaluated(tmp_path, capsys):
  training = Training(tmp_path)
  training.write(1)
  training.write(2)
  (data,) = tmp_path.glob("ckpt-1.data-*")
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)
  # Written, but not yet in the state file.
  for path in tmp_path.glob("ckpt-2.*"):
    (tmp_path / path.name.replace("ckpt-2", "ckpt-3")).write_bytes(path.read_bytes())
  (tmp_path / "ckpt-4.index").write_bytes(b"half")
  iterator = training.watcher().checkpoints_until(5)
  assert steps([next(iterator)]) == [2]
  with pytest.raises(
    UserError, match=r"after that of step 2 .* for 10 seconds \(the training ends"
  ):
    next(iterator)
  assert "ckpt-1 is corrupt and not evaluated" in capsys.readouterr().err


def test_timeout_without_checkpoint(tmp_path):
  training = Training(tmp_path / "missing")
  with pytest.raises(UserError, match=r"no checkpoint at all in --model_dir=.*/missing for 10 sec"):
    training.watcher().wait_for_first()
  assert 10 < training.now < 20


def test_interrupted_watcher_stops(tmp_path):
  training = Training(tmp_path, steps=[1])
  watcher = training.watcher(interrupted=lambda: training.now >= 4)
  assert steps(watcher.checkpoints_until(9)) == [1]
