"""Writing a file or a directory whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from sasa_tf.errors import UserError


def refuse_existing(path: str, flag: str, overwrite: bool) -> None:
  """Raises a `UserError` where something would be overwritten that may not be.

  Args:
    path: to write.
    flag: where it comes from, for the message.
    overwrite: whether it may be replaced.
  """
  if pathlib.Path(path).exists() and not overwrite:
    raise UserError(f"--{flag}={path} exists. Choose another, or pass --overwrite.")


@contextlib.contextmanager
def staged(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path to write to, which takes the target's place when all went well."""
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
