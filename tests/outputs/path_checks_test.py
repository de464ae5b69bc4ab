"""Which paths a program may write to, and what it may replace."""

import os
import pathlib
import re

import pytest

from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import (
  begins_with,
  check_directory,
  check_file,
  check_local_input,
  check_local_path,
  check_plain_files,
)

from .directories import LAYOUT, texts, write


def check(path, *, overwrite=True, **inputs):
  return check_directory(path, "export_dir", LAYOUT, overwrite=overwrite, inputs=inputs)


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
  """Each test runs in tmp_path/work, with tmp_path/home as the home directory."""
  for name, use in (("work", monkeypatch.chdir), ("home", lambda p: monkeypatch.setenv("HOME", p))):
    (tmp_path / name).mkdir()
    use(str(tmp_path / name))


def test_new_and_own_directories_may_be_written(tmp_path):
  assert check("a/b/c", overwrite=False) == tmp_path / "work/a/b/c"
  (tmp_path / "empty").mkdir()
  assert check(tmp_path / "empty") == tmp_path / "empty"
  write(tmp_path / "a", "old")
  assert check(f"{tmp_path}/work/../a/") == tmp_path / "a"
  with pytest.raises(UserError, match=r"--export_dir=.*a exists\. .* --overwrite"):
    check(tmp_path / "a", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
  ("path", "message"),
  [
    (".", "is the working directory"),
    ("", "is empty"),
    ("..", "contains --model_dir"),
    ("../home", "is the home directory"),
    ("~", "is the home directory"),
    ("/", "contains"),
    ("../runs", "contains --model_dir"),
    ("../runs/digits", "is --model_dir"),
    ("../runs/digits/best_ckpt", "is --checkpoint_path"),
  ],
)
def test_protected_directories_are_never_replaced(tmp_path, path, message, overwrite):
  (tmp_path / "runs/digits/best_ckpt").mkdir(parents=True)
  path = str(tmp_path / "home") if path == "~" else path
  with pytest.raises(UserError, match=message):
    check(
      path,
      overwrite=overwrite,
      model_dir="../runs/digits",
      checkpoint_path=str(tmp_path / "runs/digits/best_ckpt"),
      labels=None,
    )


def test_inputs_are_protected_through_links(tmp_path):
  write(tmp_path / "real", "old")
  (tmp_path / "link").symlink_to(tmp_path / "real")
  with pytest.raises(UserError, match="contains --labels"):
    check(tmp_path / "real", labels=str(tmp_path / "link/parts/0"))


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    (lambda path: (path / "photo.jpg").write_text("x"), r"also holds photo\.jpg"),
    (lambda path: (path / "parts/x").mkdir(), "also holds parts/x"),
    (lambda path: (path / "parts/2").symlink_to("/etc/hostname"), "also holds parts/2"),
    (lambda path: (path / "main").unlink(), "has no main"),
  ],
)
def test_directory_with_other_content_is_not_replaced(tmp_path, extra, message):
  write(tmp_path / "a", "old")
  extra(tmp_path / "a")
  before = texts(tmp_path / "a")
  with pytest.raises(UserError, match=f"is not a test output: it {message}.*Only what this progr"):
    check(tmp_path / "a")
  assert texts(tmp_path / "a") == before


def test_links_are_not_replaced(tmp_path):
  write(tmp_path / "a", "old")
  (tmp_path / "link").symlink_to(tmp_path / "a")
  (tmp_path / "broken").symlink_to(tmp_path / "missing")
  for name in ("link", "broken"):
    with pytest.raises(UserError, match=f"--export_dir=.*{name} is a symbolic link to "):
      check(tmp_path / name)
    with pytest.raises(UserError, match=r"is a symbolic link|is a directory"):
      check_file(tmp_path / name, "litert", overwrite=True)


def test_mount_point_is_not_replaced(tmp_path, monkeypatch):
  write(tmp_path / "a", "old")
  monkeypatch.setattr(os.path, "ismount", lambda path: pathlib.Path(path) == tmp_path / "a")
  with pytest.raises(UserError, match="is a mount point"):
    check(tmp_path / "a")
  monkeypatch.setattr(os.path, "ismount", lambda path: pathlib.Path(path).name == "parts")
  with pytest.raises(UserError, match="also holds parts"):
    check(tmp_path / "a")


@pytest.mark.parametrize("path", ["gs://bucket/a", "s3://bucket/a", "hdfs://host/a", "gs:/bucket"])
def test_remote_paths_raise(path):
  with pytest.raises(UserError, match=f"--output={path}: expected a local path"):
    check_local_path(path, "output")
  assert not list(pathlib.Path().iterdir())


def test_parents_that_cannot_hold_the_output(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  (tmp_path / "broken").symlink_to(tmp_path / "missing")
  for path in ("file/a", "file/a/b"):
    with pytest.raises(UserError, match=f"{tmp_path}/file is a file; expected a directory"):
      check(tmp_path / path)
  with pytest.raises(UserError, match="is a file; expected a directory"):
    check(tmp_path / "file")
  for name in ("x" * 300, "x" * 250, "a\0b"):
    with pytest.raises(UserError, match=r"cannot be written: (File name too long|.*null)"):
      check(tmp_path / name)
  monkeypatch.setattr(os, "access", lambda path, mode: pathlib.Path(path) != tmp_path)
  with pytest.raises(UserError, match=re.escape(f"the directory {tmp_path} is not writable")):
    check(tmp_path / "new/a")


def test_files(tmp_path):
  is_own = begins_with(b"MINE", offset=2)
  arguments = {"is_own": is_own, "kind": "a test file"}
  assert check_file("new", "plot", overwrite=False, **arguments) == tmp_path / "work/new"
  for name, content in (("own", b"..MINE"), ("empty", b""), ("photo", b"JPEG")):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"--plot=.*{name} exists.*--overwrite"):
      check_file(tmp_path / name, "plot", overwrite=False, **arguments)
  check_file(tmp_path / "own", "plot", overwrite=True, **arguments)
  check_file(tmp_path / "empty", "plot", overwrite=True, **arguments)
  with pytest.raises(UserError, match="photo exists and is not a test file"):
    check_file(tmp_path / "photo", "plot", overwrite=True, **arguments)
  check_file(tmp_path / "photo", "plot", overwrite=True)
  with pytest.raises(UserError, match="is a directory; expected a file"):
    check_file(tmp_path, "plot", overwrite=True)
  assert check_file("/dev/null", "plot", overwrite=False) == pathlib.Path("/dev/null")


def test_remote_inputs_are_named_with_their_flag():
  for address in ("gs://bucket/a", "s3://bucket", "https://host/a.png", "hdfs://host:80/a"):
    with pytest.raises(UserError, match=rf"--input={address}: expected a local path.*Copy it"):
      check_local_input(address, "input")
    with pytest.raises(UserError, match=rf"^{address}: expected a local path"):
      check_local_input(address, "")
  pathlib.Path("a:/b").mkdir(parents=True)
  for path in ("a", "/a/b:c", "C:/a", "a:/b", ""):
    check_local_input(path, "input")


def test_files_of_a_program_are_no_links_and_no_pipes():
  pathlib.Path("outside").write_text("kept")
  pathlib.Path("link").symlink_to("outside")
  pathlib.Path("lost").symlink_to("nowhere")
  pathlib.Path("directory").mkdir()
  os.mkfifo("pipe")
  check_plain_files([pathlib.Path("missing"), pathlib.Path("outside")], "it")
  for name, kind in (
    ("link", "a link to .*/outside, which it would overwrite"),
    ("lost", "a link to"),
    ("directory", "a directory; expected a file"),
    ("pipe", "a pipe or a device; expected a file"),
  ):
    with pytest.raises(UserError, match=f"^{name} is {kind}"):
      check_plain_files([pathlib.Path(name)], "it")
