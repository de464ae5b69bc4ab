"""Locks that processes hold while they run, and that the system releases when they end."""

from __future__ import annotations

import fcntl
import pathlib
from typing import IO


def lock_file(path: pathlib.Path) -> IO[bytes] | None:
  """Opens and locks a file; returns None if another process holds the lock.

  Args:
    path: of the file, which is created.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open("ab")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  except OSError:
    pass  # Some network file systems cannot lock.
  return file
