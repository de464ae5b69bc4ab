"""Atomic replacement of files and directories, and recovery from a kill at any moment."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from sasa_tf.errors import UserError
from sasa_tf.outputs.replacement import recover_directory, replace_directory, replace_file

from .directories import LAYOUT, complete, texts, write


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_file_is_replaced_on_success_only(tmp_path, exists, fails):
  target = tmp_path / "folder" / "a.txt"
  if exists:
    target.parent.mkdir()
    target.write_text("old")
  try:
    with replace_file(target) as path:
      path.write_text("new")
      assert path.suffix == ".txt"
      assert target.exists() == exists
      if fails:
        raise KeyError
  except KeyError:
    assert fails
  assert target.parent.exists() == (exists or not fails)  # created directories are removed
  if target.parent.exists():
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]
    assert target.read_text() == ("old" if fails else "new")


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_directory_is_replaced_on_success_only(tmp_path, exists, fails):
  target = tmp_path / "folder" / "a"
  if exists:
    write(target, "old")
  try:
    with replace_directory(target, LAYOUT) as path:
      write(path, "new")
      assert target.exists() == exists
      if fails:
        raise KeyError
  except KeyError:
    assert fails
  assert target.parent.exists() == (exists or not fails)  # created directories are removed
  if target.parent.exists():
    assert [path.name for path in target.parent.iterdir()] == ["a"]
    assert texts(target) == complete("old" if fails else "new")


def test_failing_rename_restores_the_old_directory(tmp_path, monkeypatch):
  write(tmp_path / "a", "old")
  rename, calls = os.rename, []

  def fail_once(*arguments):
    calls.append(arguments)
    if len(calls) == 2:
      raise OSError("no rename")
    rename(*arguments)

  monkeypatch.setattr(os, "rename", fail_once)
  with pytest.raises(OSError, match="no rename"), replace_directory(tmp_path / "a", LAYOUT) as path:
    write(path, "new")
  assert texts(tmp_path / "a") == complete("old")
  assert [path.name for path in tmp_path.iterdir()] == ["a"]


ROOT = pathlib.Path(__file__).parents[2]
KILLED = """
import os, pathlib, signal, sys
sys.dont_write_bytecode = True  # would be changes too
from sasa_tf.outputs.replacement import replace_directory
from tests.outputs.directories import LAYOUT, write
count = iter(range(int(sys.argv[2]) + 1))
def killed_at_last(event, arguments):
  changes = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
  if event in changes and next(count, None) in (int(sys.argv[2]), None):
    os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(killed_at_last)
with replace_directory(pathlib.Path(sys.argv[1], "a"), LAYOUT) as path:
  write(path, "new")
"""


def test_next_run_recovers_from_a_kill_before_any_change(tmp_path):
  """One process per change: creations of directories, both renames, and the removal of the old."""
  seen = set()
  for change in range(20):
    path = tmp_path / str(change)
    write(path / "a", "old")
    status = subprocess.run([sys.executable, "-c", KILLED, path, str(change)], cwd=ROOT).returncode
    if status == 0:
      break
    assert status == -signal.SIGKILL
    seen.add(tuple(sorted(entry.name for entry in path.iterdir())))
    complete_ones = [texts(directory) for directory in path.iterdir()]
    assert complete("old") in complete_ones or complete("new") in complete_ones
    recover_directory(path / "a", LAYOUT)
    assert [entry.name for entry in path.iterdir()] == ["a"]
    assert texts(path / "a") in (complete("old"), complete("new"))
    with replace_directory(path / "a", LAYOUT) as directory:
      write(directory, "later")
    assert texts(path / "a") == complete("later")
  assert status == 0 and texts(path / "a") == complete("new")
  assert {("a",), (".incomplete.a", "a"), (".replaced.a", "a")} <= seen
  assert (".incomplete.a", ".replaced.a") in seen  # between the renames


def test_leftover_of_a_killed_file_is_replaced(tmp_path):
  (tmp_path / ".incomplete.a").write_text("a long leftover")
  with replace_file(tmp_path / "a") as path:
    path.write_text("new")
  assert texts(tmp_path) == {"a": "new"}


def test_links_at_temporary_names_lead_nowhere(tmp_path):
  outside = tmp_path / "outside"
  write(outside, "precious")
  (tmp_path / "file").write_text("precious")
  directory = tmp_path / "out"
  directory.mkdir()
  for name in (".incomplete.a", ".replaced.a"):
    (directory / name).symlink_to(outside)
  (directory / ".incomplete.b").symlink_to(tmp_path / "file")
  with replace_directory(directory / "a", LAYOUT) as path:
    write(path, "new")
  with replace_file(directory / "b") as path:
    path.write_text("new")
  assert texts(outside) == complete("precious")
  assert (tmp_path / "file").read_text() == "precious"
  assert sorted(path.name for path in directory.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("name", [".incomplete.a", ".replaced.a"])
def test_other_content_with_a_temporary_name_is_not_removed(tmp_path, name):
  (tmp_path / name).mkdir()
  (tmp_path / name / "photo.jpg").write_text("precious")
  with (
    pytest.raises(UserError, match=r"holds photo\.jpg"),
    replace_directory(tmp_path / "a", LAYOUT),
  ):
    pass
  assert (tmp_path / name / "photo.jpg").read_text() == "precious"


def test_content_that_appears_while_writing_is_not_lost(tmp_path):
  write(tmp_path / "a", "old")
  with (
    pytest.raises(UserError, match="it also holds notes"),
    replace_directory(tmp_path / "a", LAYOUT) as path,
  ):
    write(path, "new")
    (tmp_path / "a" / "notes").write_text("precious")
  assert texts(tmp_path / "a") == {**complete("old"), "notes": "precious"}


def test_two_writers_of_one_output(tmp_path):
  with replace_directory(tmp_path / "a", LAYOUT) as path:
    write(path, "first")
    with (
      pytest.raises(UserError, match="another process is writing"),
      replace_directory(tmp_path / "a", LAYOUT),
    ):
      pass
  assert texts(tmp_path / "a") == complete("first")
  with replace_file(tmp_path / "b") as path:
    path.write_text("first")
    with pytest.raises(UserError, match="another process"), replace_file(tmp_path / "b"):
      pass
  assert (tmp_path / "b").read_text() == "first"


def test_device_is_written_to_directly():
  with replace_file(pathlib.Path("/dev/null")) as path:
    path.write_text("new")
  assert pathlib.Path("/dev/null").is_char_device()
