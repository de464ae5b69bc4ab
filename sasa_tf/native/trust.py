"""Whether files belong to this user, so that no one else can plant code that this process runs."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterable

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def untrusted_reason(paths: Iterable[pathlib.Path]) -> str | None:
  """Returns why another user could have written one of the paths, or None.

  Args:
    paths: existing files and directories. They must belong to this user or root, and only their
      owner may write to them. Links are followed.
  """
  for path in paths:
    try:
      status = os.stat(path)
    except OSError as error:
      return f"{path} cannot be read ({error.strerror})"
    if status.st_uid not in (os.geteuid(), 0):
      return (
        f"{path} belongs to another user (uid {status.st_uid}), who could replace the code in it; "
        "expected this user or root"
      )
    if status.st_mode & _WRITABLE_BY_OTHERS:
      return (
        f"{path} is writable by other users (mode {stat.S_IMODE(status.st_mode):04o}), who could "
        f"replace the code in it; run `chmod go-w {path}` if you trust its content"
      )
  return None


def revoke_writing(path: pathlib.Path) -> None:
  """Lets only the owner write to a file or directory."""
  path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_WRITABLE_BY_OTHERS)
