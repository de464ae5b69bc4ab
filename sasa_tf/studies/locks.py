"""Locks that processes hold while they run, and that the system releases when they end."""

from __future__ import annotations

import pathlib
from typing import IO

from sasa_tf.outputs.file_locks import try_lock


def lock_file(path: pathlib.Path) -> IO[bytes] | None:
  """Opens and locks a file; returns None if another process holds the lock.

  Args:
    path: of the file, which is created.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open("ab")
  if not try_lock(file):
    file.close()
    return None
  return file
