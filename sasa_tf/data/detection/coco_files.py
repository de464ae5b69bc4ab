"""Reads COCO instances files."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sasa_tf.data.detection.boxes import AnnotatedImage, Box
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.image_example import Problem

_FORMAT = 'Expected COCO\'s instances format: {"images": [...], "annotations": [...], "categories":'


class CocoFile(NamedTuple):
  """The three lists of an instances file; the categories are sorted by id."""

  path: str
  images: list[dict[str, Any]]
  annotations: list[dict[str, Any]]
  categories: list[dict[str, Any]]


def read_coco(path: str | os.PathLike) -> CocoFile:
  """Reads an instances file and validates its images and categories.

  Args:
    path: the JSON file.

  Returns:
    Its lists.

  Raises:
    DatasetError: if it cannot be read or has another format, or if ids are missing or not unique.
  """
  path = os.fspath(path)
  try:
    content = json.loads(pathlib.Path(path).read_bytes())
  except OSError as error:
    raise DatasetError(f"cannot read {path}: {error.strerror}. {_FORMAT} [...]}}.") from error
  except ValueError as error:
    raise DatasetError(f"{path} is not valid JSON ({error}). {_FORMAT} [...]}}.") from error
  lists = []
  for name in ("images", "annotations", "categories"):
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
      raise DatasetError(f"{path} has no list of objects {name!r}. {_FORMAT} [...]}}.")
    lists.append(entries)
  images, annotations, categories = lists
  _check_ids(path, "images", images)
  _check_ids(path, "categories", categories)
  for category in categories:
    if not isinstance(category.get("name"), str):
      raise DatasetError(f"{path}: category {category['id']} has no name.")
  return CocoFile(path, images, annotations, sorted(categories, key=lambda c: c["id"]))


def _check_ids(path: str, name: str, entries: Sequence[dict[str, Any]]) -> None:
  if not entries:
    raise DatasetError(f"{path}: the list {name!r} is empty.")
  seen = set()
  for entry in entries:
    number = entry.get("id")
    if type(number) is not int or number < 0:
      raise DatasetError(f"{path}: the ids of {name} must be integers from 0, received {number!r}.")
    if number in seen:
      raise DatasetError(f"{path}: two {name} have the id {number}. Make the ids unique.")
    seen.add(number)


def join_annotations(
  file: CocoFile, folder: str | os.PathLike, labels: Mapping[int, int]
) -> tuple[list[AnnotatedImage], list[Problem]]:
  """Joins images with their annotations.

  Args:
    file: the instances file.
    folder: folder of its images.
    labels: {category id: label}; annotations of the file's other categories are skipped.

  Returns:
    The images, and the problems of annotations that belong to no image.
  """
  boxes: dict[int, list[Box]] = {image["id"]: [] for image in file.images}
  problems: dict[int, list[Problem]] = {image["id"]: [] for image in file.images}
  unmatched = []
  known = {category["id"] for category in file.categories}
  for annotation in file.annotations:
    name = f"annotation {annotation.get('id', 'without id')}"
    image_id, category = annotation.get("image_id"), annotation.get("category_id")
    if type(image_id) is not int or image_id not in boxes:
      kind = "of an image that is not listed"
      message = f"{file.path}: {name} (image_id {image_id!r}): {kind}, dropped"
      unmatched.append(Problem(kind, message))
      continue
    kind = None
    if type(category) is not int or category not in known:
      kind = "of a category that is not listed"
    elif not (box := _box(annotation, labels.get(category, 0), name)):
      kind = "without a readable bbox"
    elif category in labels:
      boxes[image_id].append(box)
    if kind:
      message = f"{file.path}: image {image_id}: {name} (category_id {category!r}): {kind}, dropped"
      problems[image_id].append(Problem(kind, message))
  images = [
    _image(file, os.fspath(folder), image, boxes[image["id"]], problems[image["id"]])
    for image in file.images
  ]
  return images, unmatched


def _box(annotation: Mapping[str, Any], label: int, name: str) -> Box | None:
  bbox, area = annotation.get("bbox"), annotation.get("area")
  if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
    return None
  x, y, width, height = map(float, bbox)
  return Box(
    x,
    y,
    x + width,
    y + height,
    label,
    float(area) if _is_number(area) and area > 0 else None,
    bool(annotation.get("iscrowd")),
    name,
  )


def _is_number(value: Any) -> bool:
  return type(value) in (int, float)


def _image(
  file: CocoFile,
  folder: str,
  image: Mapping[str, Any],
  boxes: Sequence[Box],
  problems: Sequence[Problem],
) -> AnnotatedImage:
  origin = f"{file.path}: image {image['id']}"
  name = image.get("file_name")
  if not isinstance(name, str) or not name:
    return AnnotatedImage("", str(image["id"]), image["id"], origin, error="has no file_name")
  size = image.get("height"), image.get("width")
  return AnnotatedImage(
    os.path.join(folder, name),
    name,
    image["id"],
    f"{origin} ({name})",
    size if all(_is_number(side) and side > 0 for side in size) else None,
    tuple(boxes),
    tuple(problems),
  )
