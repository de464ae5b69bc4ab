"""Result files, to which the programs append one JSON object per line."""

from __future__ import annotations

import errno
import json
import os
import pathlib
from collections.abc import Iterable

from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_local_path
from sasa_tf.outputs.replacement import is_device

# Bytes of a file's beginning to look for its first line in.
_MAX_LINE = 2**20


def check_json_lines(path: str | os.PathLike) -> pathlib.Path:
  """Checks that results can be appended to the file of --output, and returns its path.

  Raises:
    UserError: the file cannot be written, or holds something else than results.
  """
  if is_device(pathlib.Path(os.fspath(path) or ".")):
    return pathlib.Path(path)
  target = check_local_path(path, "output")
  if target.is_dir():
    raise UserError(f"--output={path} is a directory; expected a file. Choose another path.")
  if target.exists():
    if not os.access(target, os.R_OK | os.W_OK):
      raise UserError(f"--output={path} is not writable. Choose another path.")
    with target.open("rb") as file:
      first = file.read(_MAX_LINE).partition(b"\n")[0]
    if target.stat().st_size and not _is_result(first):
      raise UserError(
        f"--output={path} exists and holds no results: expected JSON lines of this program; "
        f"received {first[:40]!r}. Choose another path."
      )
  return target


def append_json_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
  """Appends lines to a file; creates the file and its directory if they do not exist.

  Args:
    path: of --output.
    lines: JSON objects without line breaks.

  Raises:
    UserError: see `check_json_lines`.
  """
  target = check_json_lines(path)
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a", encoding="utf-8") as file:
      if not is_device(target) and not _ends_with_line(target):
        file.write("\n")  # a process was killed while it wrote the last line
      file.writelines(f"{line}\n" for line in lines)
  except OSError as error:
    raise UserError(
      f"--output={path} cannot be written: {error.strerror}. Choose another path."
    ) from error


def read_lines(path: str | os.PathLike) -> list[str]:
  """Returns the lines of a result file; bytes that are no UTF-8 text are replaced.

  Raises:
    OSError: the file cannot be read, or is a directory, a pipe or a device.
  """
  if os.path.exists(path) and not os.path.isfile(path):  # /dev/zero would be read forever
    raise OSError(errno.EINVAL, "Is not a regular file", os.fspath(path))
  return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _is_result(line: bytes) -> bool:
  try:
    value = json.loads(line)
  except (ValueError, RecursionError):
    # Unfinished, of a process that was killed while it wrote its first result.
    return line.startswith(b'{"case"')
  return isinstance(value, dict) and isinstance(value.get("case"), dict)


def _ends_with_line(path: pathlib.Path) -> bool:
  size = path.stat().st_size
  if not size:
    return True
  with path.open("rb") as file:
    file.seek(size - 1)
    return file.read() == b"\n"
