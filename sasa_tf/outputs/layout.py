"""Recognizes what the programs wrote earlier by what it holds."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

from sasa_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class DirectoryLayout:
  """The entries of a directory that a program writes as a whole.

  Attributes:
    name: what the directory is, for messages.
    required: relative paths of files that every complete directory has.
    files: regular expression of the relative paths of all files.
    directories: regular expression of the relative paths of all directories.
    temporary: regular expression of further entries while the directory is being written.
  """

  name: str
  required: tuple[str, ...]
  files: str
  directories: str
  temporary: str = ""

  def mismatch(self, directory: pathlib.Path) -> str | None:
    """Returns why a program did not write this directory, or None if it did.

    An empty directory has no content to lose and matches.
    """
    entries = set(_entries(directory))
    if not entries:
      return None
    unknown = self._unknown(entries, self.files, self.directories)
    if unknown:
      return f"it also holds {_listed(unknown)}"
    missing = sorted(set(self.required) - {path for path, _ in entries})
    return f"it has no {_listed(missing)}" if missing else None

  def foreign_entries(self, directory: pathlib.Path) -> str:
    """Returns the entries of an incomplete directory that no program writes; "" if there are none.

    Args:
      directory: being written, or being removed, when its process was killed.
    """
    files, directories = (f"{known}|{self.temporary}" for known in (self.files, self.directories))
    return _listed(self._unknown(set(_entries(directory)), files, directories))

  @staticmethod
  def _unknown(entries: set[tuple[str, str]], files: str, directories: str) -> list[str]:
    known = {"file": files, "directory": directories}
    return sorted(
      path for path, kind in entries if kind not in known or not re.fullmatch(known[kind], path)
    )


def _entries(directory: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields (relative path, kind) of all entries; a kind is "file", "directory" or "other"."""

  def fail(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error

  for folder, names, files in os.walk(directory, onerror=fail):
    for name in [*names, *files]:
      path = pathlib.Path(folder, name)
      kind = "other"  # links and devices, and volumes that are mounted inside
      if not path.is_symlink() and not os.path.ismount(path):
        kind = "directory" if path.is_dir() else "file" if path.is_file() else "other"
      yield path.relative_to(directory).as_posix(), kind


def _listed(names: list[str], limit: int = 5) -> str:
  more = f" and {len(names) - limit} more" if len(names) > limit else ""
  return ", ".join(names[:limit]) + more
