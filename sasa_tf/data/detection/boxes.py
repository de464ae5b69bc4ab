"""Bounding boxes and their classes, with their validation.

Labels start at 1; label 0 is Model Garden's background. The first line of labels.txt is therefore
`background`: the line number, from 0, is the label, and the number of lines is the number of
classes of the model.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.text_files import read_lines
from sasa_tf.data.inputs.values import shown
from sasa_tf.data.labels import check_class_names
from sasa_tf.data.tfrecord.image_example import Problem

BACKGROUND = "background"
_UNUSED = "unused "  # begins the names of labels without a class

# Tolerance in pixels for fractional coordinates, and for tools that count pixels from 0 or 1.
_TOLERANCE = 1.0


class BoxClasses(NamedTuple):
  """Class names in the order of their labels, and the categories of COCO annotation files."""

  class_names: tuple[str, ...]
  categories: tuple[dict[str, Any], ...]


class Box(NamedTuple):
  """A labelled box in pixels; the origin is the upper left corner of the image.

  Attributes:
    xmin: left edge.
    ymin: upper edge.
    xmax: right edge.
    ymax: lower edge.
    label: class label, from 1.
    area: area of the object's outline in square pixels; None for the area of the box.
    is_crowd: whether training and evaluation ignore it, for example because it surrounds a group.
    name: identifies the annotation in messages.
  """

  xmin: float
  ymin: float
  xmax: float
  ymax: float
  label: int
  area: float | None = None
  is_crowd: bool = False
  name: str = ""


class AnnotatedImage(NamedTuple):
  """An image to convert, with its annotations.

  Attributes:
    path: the image file.
    name: name of the image in the data set, with / as separator.
    source_id: image id in records, detections and annotation files.
    origin: where the annotation is, for messages.
    size: (height, width) according to the annotation, None if it does not say.
    boxes: the boxes, not validated.
    problems: invalid annotations that no box represents.
    error: why the image cannot be converted at all; None if no reason is known.
  """

  path: str
  name: str
  source_id: int
  origin: str
  size: tuple[int, int] | None = None
  boxes: Sequence[Box] = ()
  problems: Sequence[Problem] = ()
  error: str | None = None


class CheckedImage(NamedTuple):
  """A converted image, with valid boxes that lie inside it."""

  source_id: int
  name: str
  height: int
  width: int
  boxes: Sequence[Box]


def check_boxes(
  image: AnnotatedImage, height: int, width: int, class_names: Sequence[str]
) -> tuple[list[Box], list[Problem]]:
  """Validates the boxes of an image and clips them to it.

  Boxes are dropped if a coordinate is not finite, if corners are swapped, if they are empty, or if
  less than a pixel of them is inside the image. Boxes partly outside are clipped. Up to a pixel
  outside is a rounding error, which is clipped without a problem.

  Args:
    image: the image and its boxes.
    height: height of the image in pixels.
    width: width of the image in pixels.
    class_names: class names in the order of their labels.

  Returns:
    The valid boxes, each with its area, and all problems of the image.
  """
  valid, problems = [], list(image.problems)
  for box in image.boxes:
    clipped, kind = _clip(box, height, width)
    if clipped:
      valid.append(clipped)
    if kind:
      corners = f"x {box.xmin:g} to {box.xmax:g}, y {box.ymin:g} to {box.ymax:g}"
      problems.append(
        Problem(
          kind,
          f"{image.origin}: {box.name} ({class_names[box.label]}, {corners}) in {width}x{height} "
          f"pixels: {kind}, {'clipped' if clipped else 'dropped'}",
        )
      )
  return valid, problems


def _clip(box: Box, height: int, width: int) -> tuple[Box | None, str | None]:
  """Returns the part of a box inside the image, if any, and the kind of its problem, if any."""
  if not all(map(math.isfinite, box[:4])):
    return None, "not a finite number"
  if box.xmax < box.xmin or box.ymax < box.ymin:
    return None, "swapped corners"
  if box.xmax == box.xmin or box.ymax == box.ymin:
    return None, "empty"
  inside = box._replace(
    xmin=max(box.xmin, 0.0),
    ymin=max(box.ymin, 0.0),
    xmax=min(box.xmax, float(width)),
    ymax=min(box.ymax, float(height)),
  )
  excess = max(abs(a - b) for a, b in zip(inside[:4], box[:4], strict=True))
  sides = inside.xmax - inside.xmin, inside.ymax - inside.ymin
  shorter_side = min(sides)
  # The kinds are keys of dataset.json.
  if shorter_side <= 0 or (excess > _TOLERANCE and shorter_side < _TOLERANCE):
    return None, "outside the image"
  if box.area is None:
    inside = inside._replace(area=math.prod(sides))
  return inside, "partly outside the image" if excess > _TOLERANCE else None


def classes_of_categories(categories: Sequence[dict[str, Any]]) -> BoxClasses:
  """Returns classes whose labels are the category ids; missing ids are named `unused <id>`.

  Args:
    categories: {"id": label from 1, "name": class name} of every class.

  Raises:
    DatasetError: if the names cannot be written to a labels.txt.
  """
  names = {category["id"]: category["name"] for category in categories}
  if BACKGROUND in names.values():
    others = [name for name in names.values() if name != BACKGROUND]
    raise DatasetError(
      f"a class is named {BACKGROUND!r}, as label 0 of every data set with boxes. Rename it in the "
      f"annotations, or skip its boxes: pass all others as --classes ({shown(', '.join(others))})."
    )
  class_names = (
    BACKGROUND,
    *(names.get(label, f"{_UNUSED}{label}") for label in range(1, max(names) + 1)),
  )
  check_class_names(class_names)
  return BoxClasses(class_names, tuple(categories))


def classes_of_names(names: Sequence[str]) -> BoxClasses:
  """Returns classes with these names and the labels 1, 2, ...

  Raises:
    DatasetError: if there are no names, or if they cannot be written to a labels.txt.
  """
  if not names:
    raise DatasetError("there are no classes: no annotation has a box, and --classes is not set.")
  return classes_of_categories(
    [{"id": label, "name": name} for label, name in enumerate(names, start=1)]
  )


def parse_classes(text: str) -> list[str]:
  """Parses --classes: comma-separated names, or the path of a .txt file with one name per line.

  Blank lines and, in a labels.txt, the names of labels without a class are skipped.

  Raises:
    DatasetError: if the file cannot be read, or a name is empty or occurs twice.
  """
  if text.lower().endswith(".txt"):
    lines = read_lines(text, "class name")
    names = [name for name in lines if name not in ("", BACKGROUND) and not _is_unused(name)]
    if not names:
      raise DatasetError(f"{text} holds no class name: expected one per line.")
  else:
    names = [name.strip() for name in text.split(",")] if text else []
  check_class_names(names)
  return names


def _is_unused(name: str) -> bool:
  return name.startswith(_UNUSED) and name.removeprefix(_UNUSED).isdecimal()
