"""labels.txt: one class name per line; the line number, from 0, is the label."""

import os
import pathlib
from collections.abc import Sequence

from sasa_tf.data.errors import DatasetError


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
  """Reads the class names of a labels.txt.

  Args:
    path: the file.

  Returns:
    The class names; a name's index is its label.

  Raises:
    DatasetError: if the file is missing, not UTF-8 text or empty, or lists a class twice.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_text(encoding="utf-8")
  except OSError as error:
    raise DatasetError(f"cannot read the class names: {path}: {error.strerror}.") from error
  except UnicodeDecodeError as error:
    raise DatasetError(f"{path} is not UTF-8 text: expected one class name per line.") from error
  names = tuple(text.removesuffix("\n").split("\n"))
  check_class_names(names)
  return names


def write_labels(path: str | os.PathLike, names: Sequence[str]) -> None:
  """Writes class names, which `read_labels` returns unchanged.

  Args:
    path: the file, which is overwritten.
    names: class names in the order of their labels.

  Raises:
    DatasetError: if a name is empty, occurs twice, contains a line break or is not valid Unicode.
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
    elif name in seen:
      problem = "occurs twice"
    else:
      seen.add(name)
      continue
    raise DatasetError(f"class name {name!r} of label {label} {problem}. Rename the class.")
