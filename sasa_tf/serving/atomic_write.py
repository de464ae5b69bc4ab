"""Atomic writes of files and directories."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from sasa_tf.errors import UserError


def check_overwrite(path: str, flag: str, overwrite: bool) -> None:
  """Raises `UserError` if `path` exists and must not be overwritten.

  Args:
    path: output path.
    flag: name of the flag that holds the path, for the message.
    overwrite: whether an existing output may be replaced.
  """
  if pathlib.Path(path).exists() and not overwrite:
    raise UserError(f"--{flag}={path} exists. Choose another, or pass --overwrite.")


@contextlib.contextmanager
def atomic_write(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path that replaces `target` on success and is removed on an error."""
  incomplete = target.with_name(f".{target.name}.incomplete")
  _remove(incomplete)
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    yield incomplete
    _remove(target)
    os.replace(incomplete, target)
  finally:
    _remove(incomplete)


def _remove(path: pathlib.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
