"""Reads COCO instances files."""

import collections
import os
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sasa_tf.data.detection.boxes import AnnotatedImage, Box
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.json_files import read_json
from sasa_tf.data.inputs.text_files import TextError
from sasa_tf.data.inputs.values import (
  MAX_INT64,
  MAX_SIDE,
  as_flag,
  as_integer,
  as_name,
  as_number,
  file_name_error,
  shown,
)
from sasa_tf.data.tfrecord.image_example import Problem

_FORMAT = 'Expected COCO\'s instances format: {"images": [...], "annotations": [...], "categories":'
# Evaluation and records hold areas as float32.
_MAX_AREA = 1e30


class CocoFile(NamedTuple):
  """An instances file.

  Attributes:
    path: the file.
    images: entries of its images, not validated.
    annotations: entries of its annotations, not validated.
    categories: its valid categories, sorted by id, with normalized names.
    problems: its invalid categories.
  """

  path: str
  images: list[Any]
  annotations: list[Any]
  categories: list[dict[str, Any]]
  problems: list[Problem]


def read_coco(path: str | os.PathLike) -> CocoFile:
  """Reads an instances file and validates its categories.

  Args:
    path: the JSON file.

  Returns:
    Its lists.

  Raises:
    DatasetError: if it cannot be read or has another format, or if no category is valid or two
      have the same id.
  """
  path = os.fspath(path)
  try:
    content = read_json(path)
  except OSError as error:
    raise DatasetError(f"cannot read {path}: {error.strerror}. {_FORMAT} [...]}}.") from error
  except TextError as error:
    raise DatasetError(f"{path}: {error}. {_FORMAT} [...]}}.") from error
  lists = []
  for name in ("images", "annotations", "categories"):
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
      raise DatasetError(f"{path} has no list of objects {name!r}. {_FORMAT} [...]}}.")
    if not entries and name != "annotations":
      raise DatasetError(f"{path}: the list {name!r} is empty.")
    lists.append(entries)
  images, annotations, entries = lists
  categories, problems = _categories(path, entries)
  return CocoFile(path, images, annotations, categories, problems)


def _categories(path: str, entries: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Problem]]:
  """Returns the valid categories, sorted by id, and problems of the others."""
  categories: dict[int, dict[str, Any]] = {}
  problems = []
  for position, entry in enumerate(entries):
    category_id = _get_id(entry)
    name = as_name(entry.get("name")) if isinstance(entry, dict) else None
    if category_id is None or name is None:
      kind = f"category without a valid {'id' if category_id is None else 'name'}"
      problems.append(
        Problem(kind, f"{path}: categories[{position}] {shown(entry)}: {kind}, dropped")
      )
    elif category_id in categories:
      raise DatasetError(f"{path}: two categories have the id {category_id}. Make the ids unique.")
    else:
      categories[category_id] = {"id": category_id, "name": name}
      if isinstance(entry.get("supercategory"), str):
        categories[category_id]["supercategory"] = entry["supercategory"]
  if not categories:
    raise DatasetError(f"{path} has no valid category: {problems[0].message}")
  return [categories[category_id] for category_id in sorted(categories)], problems


def _get_id(entry: Any, key: str = "id") -> int | None:
  """Returns an id that TensorFlow and pycocotools can hold, None if the entry has none."""
  return as_integer(entry.get(key), 0, MAX_INT64) if isinstance(entry, dict) else None


def join_annotations(
  file: CocoFile, folder: str | os.PathLike, labels: Mapping[int, int]
) -> tuple[list[AnnotatedImage], list[Problem]]:
  """Joins images with their annotations.

  Args:
    file: the instances file.
    folder: folder of its images.
    labels: {category id: label}; annotations of the file's other categories are skipped.

  Returns:
    The images, those with an invalid entry with their `error`, and the problems that belong to no
    image.
  """
  counts = collections.Counter(_get_id(entry) for entry in file.images)
  boxes: dict[int, list[Box]] = {i: [] for i in counts if i is not None and counts[i] == 1}
  problems: dict[int, list[Problem]] = {image_id: [] for image_id in boxes}
  unmatched = list(file.problems)
  known = {category["id"] for category in file.categories}
  for position, entry in enumerate(file.annotations):
    annotation = entry if isinstance(entry, dict) else {}
    annotation_id = _get_id(annotation)
    name = f"annotations[{position}]" if annotation_id is None else f"annotation {annotation_id}"
    image_id, category_id = _get_id(annotation, "image_id"), _get_id(annotation, "category_id")
    if image_id not in boxes:
      kind = "of an image that is not listed"
      if image_id is None or image_id in counts:
        kind = f"with an {'invalid' if image_id is None else 'ambiguous'} image_id"
      value = shown(annotation.get("image_id"))
      unmatched.append(Problem(kind, f"{file.path}: {name} (image_id {value}): {kind}, dropped"))
      continue
    box, kind = _box(annotation, labels.get(category_id, 0), name)
    if category_id not in known:
      box, kind = None, "of a category that is not listed"
    if box and category_id in labels:
      boxes[image_id].append(box)
    if kind:
      value = shown(annotation.get("category_id"))
      outcome = "area of the box used" if box else "dropped"
      message = f"{file.path}: image {image_id}: {name} (category_id {value}): {kind}, {outcome}"
      problems[image_id].append(Problem(kind, message))
  images = [
    _image(file.path, os.fspath(folder), position, entry, boxes, problems)
    for position, entry in enumerate(file.images)
  ]
  return images, unmatched


def _box(annotation: Mapping[str, Any], label: int, name: str) -> tuple[Box | None, str | None]:
  """Returns the box of an annotation, None if it has none, and the kind of its problem, if any."""
  bbox = annotation.get("bbox")
  numbers = [as_number(value) for value in bbox] if isinstance(bbox, list) else []
  if len(numbers) != 4 or None in numbers:
    return None, "without a readable bbox"
  is_crowd = as_flag(annotation.get("iscrowd"))
  if is_crowd is None:
    return None, "with an invalid iscrowd"
  x, y, width, height = numbers
  area, kind = as_number(annotation.get("area") or 0), None  # Some tools omit it or write 0.
  if area is None or not 0 <= area <= _MAX_AREA:  # also nan
    area, kind = 0.0, "with an invalid area"
  return Box(x, y, x + width, y + height, label, area or None, is_crowd, name), kind


def _image(
  path: str,
  folder: str,
  position: int,
  entry: Any,
  boxes: Mapping[int, Sequence[Box]],
  problems: Mapping[int, Sequence[Problem]],
) -> AnnotatedImage:
  image_id = _get_id(entry)
  if image_id not in boxes:
    name = f"images[{position}]"
    if image_id is None:
      received = shown(entry.get("id")) if isinstance(entry, dict) else shown(entry)
      error = f"the ids of images must be integers from 0 to 2^63 - 1, received {received}"
    else:
      error = f"two images have the id {image_id}; make the ids unique"
    return AnnotatedImage("", name, -1, f"{path}: {name}", error=error)
  origin = f"{path}: image {image_id}"
  name = entry.get("file_name")
  if isinstance(name, str):
    name = name.replace("\\", "/")  # Windows
  if error := file_name_error(name):
    return AnnotatedImage("", str(image_id), image_id, origin, error=error)
  origin = f"{origin} ({name})"
  sides = [entry.get("height") or 0, entry.get("width") or 0]
  size = tuple(as_integer(side, 0, MAX_SIDE) for side in sides)
  found = list(problems[image_id])
  if None in size:
    kind, received = "with an invalid size", f"{shown(sides[1])} x {shown(sides[0])}"
    found.append(Problem(kind, f"{origin}: {kind}, {received}, ignored"))
  return AnnotatedImage(
    _existing(folder, name),
    name,
    image_id,
    origin,
    size if all(size) else None,
    tuple(boxes[image_id]),
    tuple(found),
  )


def check_images_exist(
  images: Sequence[AnnotatedImage], folder: str | os.PathLike, path: str
) -> None:
  """Raises a `DatasetError` if the folder has none of the images.

  Args:
    images: the images of `join_annotations`.
    folder: folder of the images.
    path: the instances file.
  """
  named = [image for image in images if image.error is None]
  if not named or any(os.path.lexists(image.path) for image in named):
    return
  folder, first = os.fspath(folder), named[0].name
  if not os.path.isdir(folder):
    raise DatasetError(f"--input {folder} is not a folder. Pass the folder of the images.")
  with os.scandir(folder) as entries:
    parents = sorted(entry.path for entry in entries if entry.is_dir())
  found = [parent for parent in parents if os.path.exists(os.path.join(parent, first))]
  fix = "the folder that the names in the file are relative to"
  raise DatasetError(
    f"--input {folder} has none of the {len(named)} images of {path}; the first is {shown(first)}. "
    f"Pass {f'--input={shlex.quote(found[0])}' if found else fix}."
  )


def _existing(folder: str, name: str) -> str:
  """Returns the path of a file, whose name macOS may have decomposed."""
  path = os.path.join(folder, name)
  if not os.path.exists(path):
    for form in ("NFC", "NFD"):
      other = os.path.join(folder, unicodedata.normalize(form, name))
      if os.path.exists(other):
        return other
  return path
