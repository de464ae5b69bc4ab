"""labels.txt: one class name per line; the line number, from 0, is the label."""

import os
import pathlib
import unicodedata
from collections.abc import Sequence

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.text_files import read_lines
from sasa_tf.data.inputs.values import shown


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
  """Reads the class names of a labels.txt that any system may have written.

  White space around names and blank lines at the end are ignored.

  Args:
    path: the file.

  Returns:
    The class names; a name's index is its label.

  Raises:
    DatasetError: if the file is missing, not text or empty, has a blank line between others, or
      lists a class twice.
  """
  names = tuple(read_lines(path, "class name"))
  if not names:
    raise DatasetError(f"{os.fspath(path)} is empty: expected one class name per line.")
  try:
    check_class_names(names)
  except DatasetError as error:
    raise DatasetError(f"{os.fspath(path)}: {error}") from error
  return names


def write_labels(path: str | os.PathLike, names: Sequence[str]) -> None:
  """Writes class names, which `read_labels` returns unchanged.

  Args:
    path: the file, which is overwritten.
    names: class names in the order of their labels.

  Raises:
    DatasetError: if a name cannot be one line of the file, or occurs twice.
  """
  check_class_names(names)
  pathlib.Path(path).write_bytes("".join(f"{name}\n" for name in names).encode("utf-8"))


def check_class_names(names: Sequence[str]) -> None:
  """Raises DatasetError if the names cannot be written to a labels.txt."""
  seen = set()
  for label, name in enumerate(names):
    if not name or "\n" in name or "\r" in name:
      problem = "must be one non-empty line"
    elif name.encode("utf-8", "replace").decode("utf-8") != name:
      problem = "is not valid Unicode"
    elif name.strip("\ufeff").strip() != name or "\0" in name:
      problem = "begins or ends with white space or a byte order mark, or contains a NUL"
    elif name in seen:
      problem = "occurs twice"
    else:
      seen.add(name)
      continue
    raise DatasetError(f"class name {shown(name)} of label {label} {problem}. Rename the class.")


def similar_names(names: Sequence[str]) -> list[tuple[str, ...]]:
  """Returns groups of names that differ only in case or in Unicode normalization."""
  groups: dict[str, list[str]] = {}
  for name in names:
    key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    groups.setdefault(key, []).append(name)
  return [tuple(group) for group in groups.values() if len(group) > 1]
