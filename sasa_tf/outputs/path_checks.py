"""Checks of output paths, before any work is done."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping

from sasa_tf.errors import UserError
from sasa_tf.outputs import replacement
from sasa_tf.outputs.layout import DirectoryLayout

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_local_input(path: str | os.PathLike, flag: str) -> None:
  """Checks that the path of an input is no remote address, such as gs://bucket/file.

  Args:
    path: of a file or directory, which may be missing.
    flag: name of the flag with the path; "" to name the path alone.

  Raises:
    UserError: the path is a remote address.
  """
  if _REMOTE.match(os.fspath(path)) and not os.path.lexists(path):
    raise UserError(
      f"{_named(flag, path)}: expected a local path; received a remote one. Copy it to a local "
      "directory, and pass the copy."
    )


def check_local_path(path: str | os.PathLike, flag: str) -> pathlib.Path:
  """Checks that a local file or directory can be created, and returns its path.

  Args:
    path: output path; may exist.
    flag: name of the flag with the path, for the messages; "" to name the path alone.

  Returns:
    The path with a resolved parent. The last part is not resolved, as it may be a link.

  Raises:
    UserError: the path is empty, remote, or below a file or a directory that is not writable.
  """
  text, named = os.fspath(path), _named(flag, path)
  if not text:
    raise UserError(f"--{flag} is empty; expected a path.")
  if _REMOTE.match(text):
    raise UserError(
      f"{named}: expected a local path; received a remote one. Write to a local directory, "
      "and copy the result."
    )
  try:
    target = _normalized(text)
    for name in (target.name, *replacement.temporary_names(target)):
      with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(target.parent / name)
  except (OSError, ValueError) as error:  # ValueError: a NUL byte
    problem = getattr(error, "strerror", None) or error
    shown = _named(flag, repr(text))
    raise UserError(f"{shown} cannot be written: {problem}. Choose another path.") from error
  _check_parent(target, named)
  return target


def check_directory(
  path: str | os.PathLike,
  flag: str,
  layout: DirectoryLayout,
  *,
  overwrite: bool,
  inputs: Mapping[str, str | None],
) -> pathlib.Path:
  """Checks that a program may create or replace a directory, and returns its path.

  Completes or undoes an earlier replacement that was killed.

  Args:
    path: directory to create.
    flag: name of the flag with the path.
    layout: what an existing directory must hold to be replaced.
    overwrite: whether an existing directory may be replaced.
    inputs: {flag: path} of what the program reads; neither these nor their parents are replaced.

  Raises:
    UserError: see `check_local_path`; or the directory exists and may not be replaced.
  """
  target = check_local_path(path, flag)
  named = _named(flag, path)
  _check_unprotected(target, named, inputs)
  replacement.recover_directory(target, layout)
  if target.is_symlink():
    raise UserError(
      f"{named} is a symbolic link to {os.readlink(target)}. Pass the directory itself, or remove "
      "the link."
    )
  if not target.exists():
    return target
  if not target.is_dir():
    raise UserError(f"{named} is a file; expected a directory. Choose another path.")
  if not overwrite:
    raise UserError(f"{named} exists. Choose another, or pass --overwrite.")
  if os.path.ismount(target):
    raise UserError(f"{named} is a mount point, which cannot be replaced. Choose a path below it.")
  replacement.check_layout(target, layout, named)
  return target


def check_file(
  path: str | os.PathLike,
  flag: str,
  *,
  overwrite: bool,
  is_own: Callable[[pathlib.Path], bool] | None = None,
  kind: str = "",
) -> pathlib.Path:
  """Checks that a program may create or replace a file, and returns its path.

  Args:
    path: file to create. A device such as /dev/stdout is written to directly.
    flag: name of the flag with the path.
    overwrite: whether an existing file may be replaced.
    is_own: whether an existing file is of the kind that the program writes. None accepts any.
    kind: the kind, for the message.

  Raises:
    UserError: see `check_local_path`; or the file exists and may not be replaced.
  """
  if replacement.is_device(pathlib.Path(os.fspath(path) or ".")):
    return pathlib.Path(path)
  target = check_local_path(path, flag)
  named = _named(flag, path)
  if target.is_dir():
    raise UserError(f"{named} is a directory; expected a file. Choose another path.")
  if target.is_symlink():
    raise UserError(
      f"{named} is a symbolic link to {os.readlink(target)}. Pass the file itself, or remove the "
      "link."
    )
  if not target.exists():
    return target
  if not overwrite:
    raise UserError(f"{named} exists. Choose another, or pass --overwrite.")
  if is_own is not None and target.stat().st_size and not is_own(target):
    raise UserError(
      f"{named} exists and is not {kind}, so it is not replaced. Choose another path, or remove "
      "the file."
    )
  return target


def check_plain_files(paths: Iterable[pathlib.Path], program: str) -> None:
  """Checks names that a program writes to in a directory of its own.

  Args:
    paths: of the files, which may be missing.
    program: what writes them, for the message.

  Raises:
    UserError: one is a link, which may lead to a file elsewhere, or no regular file.
  """
  for path in paths:
    if path.is_symlink():
      raise UserError(
        f"{path} is a link to {os.path.realpath(path)}, which {program} would overwrite. Remove "
        "the link."
      )
    if os.path.lexists(path) and not path.is_file():
      kind = "a directory" if path.is_dir() else "a pipe or a device"
      raise UserError(
        f"{path} is {kind}; expected a file, which {program} writes. Move it, or choose another "
        "directory."
      )


def begins_with(content: bytes, offset: int = 0) -> Callable[[pathlib.Path], bool]:
  """Returns a check whether a file has these bytes at this offset."""

  def check(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
      return file.read(offset + len(content))[offset:] == content

  return check


def _named(flag: str, path: str | os.PathLike) -> str:
  """Returns how messages name a path: with its flag, if it is the value of one."""
  return f"--{flag}={os.fspath(path)}" if flag else os.fspath(path)


def _normalized(path: str) -> pathlib.Path:
  head, name = os.path.split(path.rstrip("/") or "/")
  if name in ("", ".", ".."):
    return pathlib.Path(os.path.realpath(path))
  return pathlib.Path(os.path.realpath(head or "."), name)


def _check_parent(target: pathlib.Path, named: str) -> None:
  """Raises a `UserError` if the nearest existing parent cannot hold the output."""
  for parent in target.parents:
    try:
      is_directory = stat.S_ISDIR(parent.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as error:
      raise UserError(f"{named}: {parent}: {error.strerror}. Choose another path.") from error
    if not is_directory:
      raise UserError(f"{named}: {parent} is a file; expected a directory. Choose another path.")
    if not os.access(parent, os.W_OK | os.X_OK):
      raise UserError(f"{named}: the directory {parent} is not writable. Choose another path.")
    return


def _check_unprotected(target: pathlib.Path, named: str, inputs: Mapping[str, str | None]) -> None:
  """Raises a `UserError` if the directory is, or contains, what must not be replaced."""
  resolved = pathlib.Path(os.path.realpath(target))
  for description, path in _protected(inputs):
    other = pathlib.Path(os.path.realpath(path))
    if resolved == other or resolved in other.parents:
      relation = "is" if resolved == other else "contains"
      raise UserError(
        f"{named} {relation} {description} ({path}), which is never replaced. Choose a directory "
        "for this output alone, for example one below it."
      )


def _protected(inputs: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
  """Yields (description, path) of what is never replaced, nor a directory above it."""
  for flag, path in inputs.items():
    if path and not _REMOTE.match(path):
      yield f"--{flag}", path
  yield "the home directory", os.path.expanduser("~")
  with contextlib.suppress(OSError):  # it was removed
    yield "the working directory", os.getcwd()
  yield "the root directory", "/"
