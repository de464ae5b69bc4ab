"""Reads regular files, and no pipes or devices, which may never end."""

import errno
import os
import pathlib
import stat


def read_bytes(path: str | os.PathLike) -> bytes:
  """Reads a regular file, or the one that a link leads to.

  Raises:
    OSError: if it cannot be read, or is a pipe, a socket or a device.
  """
  path = pathlib.Path(path)
  try:
    mode = path.stat().st_mode
  except ValueError as error:  # a NUL in the name
    raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
  if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
    raise OSError(
      errno.EINVAL,
      "not a regular file, but a pipe, socket or device. Save its content to a file",
      os.fspath(path),
    )
  return path.read_bytes()


def find_irregular(directory: str | os.PathLike) -> pathlib.Path | None:
  """Returns a pipe, socket or device below a directory, which may be read forever, or None."""
  for path in sorted(pathlib.Path(directory).rglob("*")):
    if path.exists() and not path.is_dir() and not path.is_file():
      return path
  return None
