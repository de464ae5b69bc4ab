"""Locks of open files and directories, which the system releases even after a kill."""

from __future__ import annotations

import fcntl
from typing import IO


def try_lock(file: int | IO[bytes]) -> bool:
  """Locks an open file or directory; returns False if another process holds the lock.

  Some network file systems cannot lock; there, nothing is locked.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    pass
  return True
