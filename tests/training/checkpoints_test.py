"""Corrupt, missing and unfinished checkpoints."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.training.resilience import checkpoints


@pytest.fixture
def directory(tmp_path):
  """A directory with the checkpoints of steps 10, 20 and 30."""
  values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
  checkpoint = tf.train.Checkpoint(value=tf.Variable(values), step=tf.Variable(0))
  manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=3)
  for step in (10, 20, 30):
    checkpoint.step.assign(step)
    manager.save(step)
  return str(tmp_path)


def data_file(checkpoint):
  return pathlib.Path(f"{checkpoint}.data-00000-of-00001")


def truncate(checkpoint):
  file = data_file(checkpoint)
  os.truncate(file, file.stat().st_size // 2)


def flip(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 0x10
  file.write_bytes(content)


CORRUPTIONS = {
  "truncated": truncate,
  "flipped byte": lambda checkpoint: flip(data_file(checkpoint)),
  "no data": lambda checkpoint: data_file(checkpoint).unlink(),
  "truncated index": lambda checkpoint: os.truncate(f"{checkpoint}.index", 20),
  "flipped byte of the index": lambda checkpoint: flip(pathlib.Path(f"{checkpoint}.index")),
  "empty index": lambda checkpoint: os.truncate(f"{checkpoint}.index", 0),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_corrupt_checkpoint_is_skipped_with_a_warning(directory, corrupt, capsys):
  last, before = f"{directory}/ckpt-30", f"{directory}/ckpt-20"
  assert checkpoints.find_corruption(last) is None
  assert checkpoints.latest_valid(directory) == last
  corrupt(last)
  assert checkpoints.find_corruption(last)
  assert checkpoints.latest_valid(directory) == before
  printed = capsys.readouterr().err
  assert f"{last} is corrupt and not used: " in printed and f"using {before}" in printed


def test_every_tensor_is_verified(directory):
  """A flipped bit anywhere in the data is detected."""
  file = data_file(f"{directory}/ckpt-30")
  original = file.read_bytes()
  for position in np.linspace(0, len(original) - 1, 40, dtype=int):
    content = bytearray(original)
    content[position] ^= 1
    file.write_bytes(content)
    assert checkpoints.find_corruption(f"{directory}/ckpt-30"), position


def test_repaired_directory_names_the_latest_valid_checkpoint(directory):
  truncate(f"{directory}/ckpt-30")
  checkpoints.repair(directory)
  assert tf.train.latest_checkpoint(directory) == f"{directory}/ckpt-20"
  checkpoint = tf.train.Checkpoint(value=tf.Variable(tf.zeros(1000)), step=tf.Variable(0))
  manager = tf.train.CheckpointManager(checkpoint, directory, max_to_keep=3)
  assert manager.restore_or_initialize() == f"{directory}/ckpt-20"
  assert int(checkpoint.step) == 20
  assert manager.checkpoints == [f"{directory}/ckpt-10", f"{directory}/ckpt-20"]
  for step in (30, 40):  # the corrupt one is replaced, the oldest deleted
    manager.save(step)
  assert checkpoints.latest_valid(directory) == f"{directory}/ckpt-40"
  assert checkpoints.find_corruption(f"{directory}/ckpt-30") is None
  assert not os.path.exists(f"{directory}/ckpt-10.index")


@pytest.mark.parametrize("state", [None, "", "nonsense {", 'model_checkpoint_path: "ckpt-99"\n'])
def test_missing_or_invalid_state_file(directory, state, capsys):
  file = pathlib.Path(directory, "checkpoint")
  file.unlink() if state is None else file.write_text(state)
  assert checkpoints.latest_valid(directory) == f"{directory}/ckpt-30"
  assert "using" in capsys.readouterr().err
  checkpoints.repair(directory)
  assert tf.train.latest_checkpoint(directory) == f"{directory}/ckpt-30"


def test_process_killed_before_it_updated_the_state_file(directory):
  state = pathlib.Path(directory, "checkpoint")
  written = state.stat().st_mtime_ns
  state.write_text(
    'model_checkpoint_path: "ckpt-20"\n'
    'all_model_checkpoint_paths: "ckpt-10"\nall_model_checkpoint_paths: "ckpt-20"\n'
  )
  # The state file is newer: the user selected an earlier checkpoint.
  os.utime(state, ns=(written + 10**9, written + 10**9))
  assert checkpoints.latest_valid(directory) == f"{directory}/ckpt-20"
  # The state file is older than the last checkpoint: the process was killed before the update.
  os.utime(state, ns=(written - 10**10, written - 10**10))
  assert checkpoints.latest_valid(directory) == f"{directory}/ckpt-30"


def test_unfinished_checkpoints_are_deleted(directory):
  unfinished = pathlib.Path(directory, "ckpt-40_temp")
  unfinished.mkdir()
  (unfinished / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"x")
  pathlib.Path(directory, "ckpt-40.index.tempstate123").touch()
  checkpoints.repair(directory)
  assert not [name for name in os.listdir(directory) if "ckpt-40" in name]
  assert tf.train.latest_checkpoint(directory) == f"{directory}/ckpt-30"


def test_links_at_names_of_unfinished_checkpoints_are_not_followed(directory, tmp_path):
  outside = tmp_path / "outside"
  (outside / "inner").mkdir(parents=True)
  (outside / "keep.txt").write_text("kept")
  for name in ("ckpt-40_temp", "ckpt-50.index.tempstate1", "checkpoint.new"):
    (tmp_path / name).symlink_to(outside if name.startswith("ckpt") else outside / "keep.txt")
  truncate(f"{directory}/ckpt-30")  # so that the state file is written
  checkpoints.repair(directory)
  assert (outside / "keep.txt").read_text() == "kept" and (outside / "inner").is_dir()
  assert not [path for path in tmp_path.iterdir() if path.is_symlink()]
  assert tf.train.latest_checkpoint(directory) == f"{directory}/ckpt-20"


@pytest.mark.parametrize("relative", [False, True])
def test_checkpoints_of_other_directories_are_never_deleted(directory, tmp_path, relative, capsys):
  """As after a copy of a directory whose state file has absolute names."""
  other = tmp_path / "other"
  other.mkdir()
  checkpoint = tf.train.Checkpoint(step=tf.Variable(0))
  path = checkpoint.write(str(other / "ckpt-5"))
  checkpoints._write_state(directory, [f"{directory}/ckpt-{step}" for step in (10, 20, 30)])
  state = tmp_path / "checkpoint"
  named = "other/ckpt-5" if relative else path
  first = 'all_model_checkpoint_paths: "ckpt-10"'
  line = f'all_model_checkpoint_paths: "{named}"\n'
  text = state.read_text().replace(
    "timestamps: ", "timestamps: 9999999999.0\nall_model_checkpoint_timestamps: ", 1
  )
  assert first in text
  state.write_text(text.replace(first, line + first))
  checkpoints.repair(directory)
  assert f"names {path}, which is not in this directory" in capsys.readouterr().err
  manager = tf.train.CheckpointManager(checkpoint, directory, max_to_keep=1)
  manager.save(40)
  assert (other / "ckpt-5.index").exists() and not (tmp_path / "ckpt-10.index").exists()
  assert tf.train.latest_checkpoint(directory) == f"{directory}/ckpt-40"


def test_state_file_of_other_directories_alone_is_removed(directory, tmp_path):
  for name in ("checkpoint", *(file.name for file in tmp_path.glob("ckpt-*"))):
    (tmp_path / name).unlink()
  (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/ckpt-1"\n')
  checkpoints.forget_others(directory)
  assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_pipes_among_the_files_of_checkpoints(directory, tmp_path, suffix, capsys):
  (tmp_path / f"ckpt-30{suffix}").unlink()
  os.mkfifo(tmp_path / f"ckpt-30{suffix}")
  assert checkpoints.latest_valid(directory) == f"{directory}/ckpt-20"
  assert f"ckpt-30{suffix} is a directory, a pipe or a device" in capsys.readouterr().err
  (tmp_path / "checkpoint").unlink()
  os.mkfifo(tmp_path / "checkpoint")
  assert not checkpoints.is_state_readable(directory)
  assert checkpoints.latest_valid(directory) == f"{directory}/ckpt-20"


def test_directory_without_checkpoint(tmp_path):
  assert checkpoints.latest_valid(str(tmp_path / "missing"), str(tmp_path)) is None
  checkpoints.repair(str(tmp_path / "missing"))
  (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"\n')
  assert checkpoints.latest_valid(str(tmp_path)) is None
  checkpoints.repair(str(tmp_path))
  assert not list(tmp_path.iterdir())


def test_only_corrupt_checkpoints_raise_an_error(directory):
  for step in (10, 20, 30):
    truncate(f"{directory}/ckpt-{step}")
  with pytest.raises(UserError, match=r"no checkpoint in .* is valid\. .*ckpt-30 is corrupt"):
    checkpoints.repair(directory)


def test_metrics_of_an_unfinished_best_checkpoint_are_deleted(tmp_path, capsys):
  metrics = tmp_path / "info.json"
  checkpoint = tf.train.Checkpoint(global_step=tf.Variable(8))
  manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), 1, checkpoint_name="best_ckpt")
  checkpoints.repair_best(str(tmp_path / "missing"), "accuracy")
  for content in (
    json.dumps({"best_ckpt_global_step": 8.0, "accuracy": 0.5}),
    "",
    '{"best_ckpt_glo',
  ):
    metrics.write_text(content)
    checkpoints.repair_best(str(tmp_path), "accuracy")  # no checkpoint yet
    assert not metrics.exists()
  assert "not finished" in capsys.readouterr().err
  manager.save()
  metrics.write_text(json.dumps({"best_ckpt_global_step": 8.0, "accuracy": 0.5}))
  checkpoints.repair_best(str(tmp_path), "accuracy")
  assert metrics.exists()
  metrics.write_text(json.dumps({"best_ckpt_global_step": 12.0, "accuracy": 0.6}))
  checkpoints.repair_best(str(tmp_path), "accuracy")
  assert not metrics.exists()
  # Metrics that no later evaluation can be compared with.
  for changed in ({}, {"accuracy": float("nan")}, {"accuracy": "x"}, {"accuracy": [1]}):
    metrics.write_text(json.dumps({"best_ckpt_global_step": 8.0, **changed}))
    checkpoints.repair_best(str(tmp_path), "accuracy")
    assert not metrics.exists()
  metrics.write_text(json.dumps({"best_ckpt_global_step": 8.0, "all": {"accuracy": 0.5}}))
  checkpoints.repair_best(str(tmp_path), "all|accuracy")
  assert metrics.exists()


@pytest.mark.parametrize(
  ("saved", "problem"),
  [
    ({"other": 3}, r"weight:0 \[3\] is not in the checkpoint; .*step:0 \[\]"),
    ({"weight": 4, "step": None, "optimizer": None}, r"weight:0 has \[4\] .*, \[3\] here"),
    ({"weight": 3, "step": None}, "it holds no optimizer"),
  ],
)
def test_checkpoint_of_another_program_is_rejected(saved, problem, tmp_path):
  """TensorFlow restores what agrees: the training would restart from random weights."""

  def variables(sizes):
    return {
      name: tf.Variable(tf.zeros([size] if size else []), name=name) for name, size in sizes.items()
    }

  objects = variables({"weight": 3, "step": None, "optimizer": None})
  path = tf.train.Checkpoint(**variables(saved)).write(str(tmp_path / "ckpt-6"))
  with pytest.raises(UserError, match=f"ckpt-6 is not a checkpoint of this training: {problem}"):
    checkpoints.check_objects(path, objects, train=True)
  checkpoints.check_objects(tf.train.Checkpoint(**objects).write(path), objects, train=True)


def test_name_based_checkpoint_is_rejected(tmp_path):
  path = str(tmp_path / "ckpt-6")
  tf.raw_ops.SaveV2(prefix=path, tensor_names=["weight"], shape_and_slices=[""], tensors=[0.0])
  with pytest.raises(UserError, match=r"ckpt-6 is not .*: it is not an object-based checkpoint"):
    checkpoints.check_objects(path, {"weight": tf.Variable(0.0)}, train=False)
