"""TensorFlow finds files in directories whose names look like patterns, and only those."""

import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf.compat.glob_free_paths import (
  escape_glob,
  glob_free_path,
  original_paths,
  original_paths_in_errors,
)
from sasa_tf.errors import UserError

NAMES = ["exp [lr=1e-3] v1", "a*", "a?", "back\\slash", "[", "*?[\\"]


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_restored_and_only_own_ones_deleted(tmp_path, name):
  """TensorFlow deletes those of every directory that matches the path of its manager."""
  other = tmp_path / "ab"
  checkpoint = tf.train.Checkpoint(value=tf.Variable([1.0]))
  for step in (1, 2, 3):
    checkpoint.write(str(other / f"ckpt-{step}"))
  (tmp_path / name).mkdir()
  manager = tf.train.CheckpointManager(checkpoint, glob_free_path(f"{tmp_path}/{name}"), 1)
  for step in (1, 2, 3):
    checkpoint.value.assign([float(step)])
    manager.save(step)
  assert [path.name for path in (tmp_path / name).glob("*.index")] == ["ckpt-3.index"]
  assert len(list(other.glob("*.index"))) == 3
  path = glob_free_path(f"{tmp_path}/{name}/ckpt-3")
  checkpoint.value.assign([0.0])
  checkpoint.read(path).assert_consumed()
  assert checkpoint.value.numpy() == [3.0]
  assert original_paths(f"in {path}.") == f"in {tmp_path}/{name}/ckpt-3."
  # The state file names the checkpoint relative to its directory.
  assert "sasa_tf_paths" not in (tmp_path / name / "checkpoint").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_escaped_pattern_matches_only_the_path(tmp_path, name):
  for directory in (name, "ab"):
    (tmp_path / directory).mkdir()
    (tmp_path / directory / "file").touch()
  pattern = f"{escape_glob(str(tmp_path / name))}/fi*"
  assert tf.io.gfile.glob(pattern) == [f"{tmp_path}/{name}/file"]


def test_other_paths_are_unchanged(tmp_path):
  for path in ("runs/digits", "gs://bucket/runs", f"{tmp_path}/a,b {{c}}'"):
    assert glob_free_path(path) == path


def test_files_and_relative_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("a,b").mkdir()
  for name in ("a,b/file", "a,b/x,y"):
    pathlib.Path(name).write_text(name)
    path = glob_free_path(name, ",")
    assert "," not in path and os.path.isabs(path)
    assert pathlib.Path(path).read_text() == name
  assert glob_free_path("a,b/file", ",") == glob_free_path(f"{tmp_path}/a,b/file", ",")


def test_unsupported_paths_raise(tmp_path):
  with pytest.raises(UserError, match=r"gs://bucket/a\*: .*of a remote path.*Rename the directory"):
    glob_free_path("gs://bucket/a*")
  (tmp_path / "ckpt[1].index").touch()
  with pytest.raises(UserError, match=r"in the name of a checkpoint.*Rename its files"):
    glob_free_path(f"{tmp_path}/ckpt[1]")


def test_errors_name_the_original_path(tmp_path):
  (tmp_path / "[x]").mkdir()
  with (
    pytest.raises(UserError, match=r"^.*/\[x\]/ckpt-1 is corrupt$"),
    original_paths_in_errors(),
  ):
    raise UserError(f"{glob_free_path(f'{tmp_path}/[x]/ckpt-1')} is corrupt")


def test_links_are_removed_when_the_process_ends(tmp_path):
  program = (
    "from sasa_tf.compat.glob_free_paths import glob_free_path; print(glob_free_path('runs/[a]'))"
  )
  environment = {**os.environ, "TMPDIR": str(tmp_path)}
  output = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
  assert output.startswith(f"{tmp_path}/sasa_tf_paths_")
  assert not list(tmp_path.iterdir())
