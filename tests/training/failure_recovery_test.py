"""A training that is ended, damaged and started again; one process, as each costs half a minute."""

import os
import pathlib
import shutil
import signal

import pytest
import tensorflow as tf

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.training import progress, run
from tests.training import tiny_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny_run.write_data(tmp_path_factory.mktemp("digits"))


def train(data, model_dir, mode="train", **arguments):
  return run.run_experiment(
    tiny_run.EXPERIMENT, tiny_run.params(data), mode=mode, model_dir=str(model_dir), **arguments
  )


def spoil(data, directory, change):
  """Copies the data; `change` is given the training's records and returns others, or bytes."""
  shutil.copytree(data, directory)
  file = sorted(directory.glob("train-*"))[-1]
  changed = change(list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator()))
  with tf.io.TFRecordWriter(str(file)) as writer:
    for record in changed:
      writer.write(record)
  return file


def without_label(record):
  example = tf.train.Example.FromString(record)
  del example.features.feature["image/class/label"]
  return example.SerializeToString()


def with_text(record):
  example = tf.train.Example.FromString(record)
  example.features.feature["image/encoded"].bytes_list.value[0] = b"<html>"
  return example.SerializeToString()


@pytest.mark.parametrize(
  ("spoil_one", "problem"),
  [
    (with_text, "begin with b'<html>'"),
    pytest.param(without_label, "there are 0", marks=pytest.mark.slow),
  ],
)
def test_spoilt_record_ends_the_run_and_is_named(data, tmp_path, spoil_one, problem):
  file = spoil(
    data, tmp_path / "data", lambda records: [*records[:9], *map(spoil_one, records[9:])]
  )
  with pytest.raises(UserError, match=rf"{file}, record 9 .*{problem}"):
    train(tmp_path / "data", tmp_path / "run", mode="train")


@pytest.mark.slow
def test_truncated_file_ends_the_run_or_is_left_out(data, tmp_path, capsys):
  file = spoil(data, tmp_path / "data", lambda records: [with_text(records[0]), *records[1:]])
  os.truncate(file, file.stat().st_size - 5)
  with pytest.raises(UserError, match=rf"{file}, record 0 .*max_corrupt_records"):
    train(tmp_path / "data", tmp_path / "run", mode="train")
  train(tmp_path / "data", tmp_path / "run", mode="train", max_corrupt_records=2)
  assert capsys.readouterr().err.count("warning: skipped ") == 2
  assert tiny_run.steps_of(tmp_path / "run")[-1] == 12


def test_sigterm_then_damage_then_the_end(data, tmp_path, monkeypatch, capsys):
  on_train, on_evaluate = progress.TrainingProgress.on_train, progress.TrainingProgress.on_evaluate
  before = signal.getsignal(signal.SIGTERM)

  def ended_at_six(self, output):
    on_train(self, output)
    if self._current_step() == 6:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(progress.TrainingProgress, "on_train", ended_at_six)
  with pytest.raises(PreemptedError, match="after step 6, which is saved in"):
    train(data, tmp_path)
  assert tiny_run.steps_of(tmp_path) == [2, 6]
  assert signal.getsignal(signal.SIGTERM) == before
  monkeypatch.setattr(progress.TrainingProgress, "on_train", on_train)

  # The last checkpoint is damaged: the run goes on from the one before it, and says so.
  os.truncate(tmp_path / "ckpt-6.data-00000-of-00001", 1000)
  begun = []
  begin = progress.TrainingProgress.begin

  def noting(self):
    begun.append(self._current_step())
    begin(self)

  monkeypatch.setattr(progress.TrainingProgress, "begin", noting)
  train(data, tmp_path, mode="train_and_eval")
  assert begun == [2]
  assert f"{tmp_path}/ckpt-6 is damaged and not used" in capsys.readouterr().err
  assert tf.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/ckpt-12"

  # An evaluation looks at what is whole, too, and writes nothing.
  os.truncate(tmp_path / "ckpt-12.data-00000-of-00001", 1000)
  state = pathlib.Path(tmp_path, "checkpoint").read_text()
  steps = []

  def noting_step(self, output):
    steps.append(self._current_step())
    on_evaluate(self, output)

  monkeypatch.setattr(progress.TrainingProgress, "on_evaluate", noting_step)
  assert "accuracy" in train(data, tmp_path, mode="eval")
  assert steps == [10]
  assert pathlib.Path(tmp_path, "checkpoint").read_text() == state
