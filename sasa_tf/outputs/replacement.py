"""Replaces files and directories so that a kill loses neither the old one nor the new one.

  .incomplete.NAME  the new one, while it is being written
  .replaced.NAME    the old directory, from before the new one gets its name until it is removed

A file is replaced by one rename. A directory needs two: the old one is renamed, then the new one.
After a kill between them, only the temporary names exist, and the next run restores the old one.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import stat
import sys
from collections.abc import Iterator

from sasa_tf.errors import UserError
from sasa_tf.outputs.file_locks import try_lock
from sasa_tf.outputs.layout import DirectoryLayout


def temporary_names(target: pathlib.Path) -> tuple[str, str]:
  """Returns the names of the new one and of the old one during a replacement."""
  return f".incomplete.{target.name}", f".replaced.{target.name}"


def is_device(path: pathlib.Path) -> bool:
  """Returns whether a path exists and is neither a file nor a directory, such as /dev/stdout."""
  try:
    mode = path.stat().st_mode
  except (OSError, ValueError):
    return False
  return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def replace_file(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the path to write a file to, which replaces `target` on success.

  After an error, `target` is unchanged.

  Args:
    target: from `path_checks.check_file`. A device is written to directly.

  Raises:
    UserError: another process is writing the file.
  """
  if is_device(target):
    yield target
    return
  new, _ = _temporary_paths(target)
  with _parents_of(target):
    _remove_link(new)
    with _locked(new, os.O_CREAT | os.O_RDWR, target) as descriptor:
      try:
        os.ftruncate(descriptor, 0)  # of a killed process
        yield new
        os.replace(new, target)
      finally:
        if _is_same(descriptor, new):
          new.unlink()


@contextlib.contextmanager
def replace_directory(target: pathlib.Path, layout: DirectoryLayout) -> Iterator[pathlib.Path]:
  """Yields an empty directory, which replaces `target` on success.

  After an error, `target` is unchanged.

  Args:
    target: from `path_checks.check_directory`.
    layout: what an existing directory must hold to be replaced.

  Raises:
    UserError: another process is writing the directory, or the existing one is not of the layout.
  """
  new, old = _temporary_paths(target)
  with _parents_of(target):
    recover_directory(target, layout)
    new.mkdir(exist_ok=True)
    with _locked(new, os.O_RDONLY | os.O_DIRECTORY, target) as descriptor:
      try:
        yield new
        if target.exists():
          check_layout(target, layout, str(target))
          os.rename(target, old)
        os.rename(new, target)
      finally:
        if old.exists() and not target.exists():  # the second rename failed
          os.rename(old, target)
        if _is_same(descriptor, new):
          shutil.rmtree(new, ignore_errors=True)
  _remove_directory(old)


def recover_directory(target: pathlib.Path, layout: DirectoryLayout) -> None:
  """Completes or undoes a replacement that was killed, and removes what it left.

  Args:
    target: directory that was to be replaced.
    layout: what the directories of the program hold.

  Raises:
    UserError: another process is writing the directory, or a temporary name is that of something
      else.
  """
  new, old = _temporary_paths(target)
  for path in (new, old):
    _remove_link(path)
    if path.exists():
      foreign = layout.foreign_entries(path) if path.is_dir() else "no directory"
      if foreign:
        raise UserError(
          f"{path} is the temporary name of {target}, but holds {foreign}, which this program did "
          "not write. Move it."
        )
  if not new.exists():
    _restore(target, old)
    return
  with _locked(new, os.O_RDONLY | os.O_DIRECTORY, target):
    _restore(target, old)
    shutil.rmtree(new)


@contextlib.contextmanager
def _parents_of(target: pathlib.Path) -> Iterator[None]:
  """Creates the directories above a path; after an error, removes those that it created."""
  missing = [directory for directory in target.parents if not directory.exists()]
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):  # directories that are not empty remain
      for directory in missing:
        directory.rmdir()
    raise


def check_layout(target: pathlib.Path, layout: DirectoryLayout, named: str) -> None:
  """Raises a `UserError` if a directory is not of the layout."""
  mismatch = layout.mismatch(target)
  if mismatch:
    raise UserError(
      f"{named} exists and is not {layout.name}: {mismatch}. Only what this program wrote is "
      "replaced. Choose another directory, or remove this one yourself."
    )


def _temporary_paths(target: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  new, old = temporary_names(target)
  return target.with_name(new), target.with_name(old)


def _restore(target: pathlib.Path, old: pathlib.Path) -> None:
  """Renames the old directory back, or removes it if the new one has its name."""
  if old.exists() and not target.exists():
    os.rename(old, target)
  _remove_directory(old)


def _remove_directory(path: pathlib.Path) -> None:
  shutil.rmtree(path, ignore_errors=True)
  if path.exists():
    print(f"warning: {path} could not be removed", file=sys.stderr, flush=True)


def _remove_link(path: pathlib.Path) -> None:
  """Removes a link with a temporary name, so that nothing is written to where it leads."""
  if path.is_symlink():
    path.unlink()


@contextlib.contextmanager
def _locked(path: pathlib.Path, flags: int, target: pathlib.Path) -> Iterator[int]:
  """Opens and locks what is being written; the system releases the lock even after a kill."""
  descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o666)
  try:
    if not try_lock(descriptor):
      raise UserError(
        f"another process is writing {target}. Wait until it ends, or choose another path."
      )
    yield descriptor
  finally:
    os.close(descriptor)


def _is_same(descriptor: int, path: pathlib.Path) -> bool:
  """Returns whether a path still names the open file or directory."""
  try:
    return os.path.samestat(os.fstat(descriptor), os.lstat(path))
  except FileNotFoundError:
    return False
