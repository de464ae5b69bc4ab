"""The classes of boxes: their labels begin at 1, as 0 is Model Garden's background.

labels.txt then begins with the line `background`, so that its line number, from 0, is the label as
ever, and its number of lines is the number of classes that a model must have.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import check_class_names, read_labels

BACKGROUND = "background"


class BoxClasses(NamedTuple):
  """Class names in the order of their labels, and the categories of COCO annotation files."""

  labels: tuple[str, ...]
  categories: tuple[dict[str, Any], ...]


def box_classes(categories: Sequence[dict[str, Any]]) -> BoxClasses:
  """Returns the classes of categories {"id": 1 or more, "name": ...}; gaps become `unused`.

  Raises:
    DatasetError: the names do not fit a labels.txt.
  """
  names = {category["id"]: category["name"] for category in categories}
  labels = (
    BACKGROUND,
    *(names.get(label, f"unused {label}") for label in range(1, max(names) + 1)),
  )
  check_class_names(labels)
  return BoxClasses(labels, tuple(categories))


def numbered_classes(names: Sequence[str]) -> BoxClasses:
  """Returns the classes of these names, labelled 1, 2, ...

  Raises:
    DatasetError: there is no name, or they do not fit a labels.txt.
  """
  if not names:
    raise DatasetError("there is no class: no annotation has a box, and no --classes are given.")
  return box_classes([{"id": label, "name": name} for label, name in enumerate(names, start=1)])


def parse_classes(text: str) -> list[str]:
  """Reads --classes: names separated by commas, or the name of a .txt file of one name a line.

  Raises:
    DatasetError: the file cannot be read, or a name is empty or occurs twice.
  """
  if text.endswith(".txt"):
    names = [name for name in read_labels(pathlib.Path(text)) if name != BACKGROUND]
  else:
    names = [name.strip() for name in text.split(",")] if text else []
  check_class_names(names)
  return names
