"""Boxes around the objects of a picture, and what may be wrong with them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sasa_tf.data.errors import DatasetError

# Annotations in fractions of pixels, and tools that count pixels from 0 or from 1, are off by this.
_ROUNDING = 1.0


class Box(NamedTuple):
  """A labelled box.

  Attributes:
    xmin: left edge, in pixels from the left edge of the picture, as the others are.
    ymin: upper edge, from the upper edge of the picture.
    xmax: right edge.
    ymax: lower edge.
    label: class number, from 1.
    area: of the object in square pixels where its outline is known, else None for the box's.
    is_crowd: whether it surrounds a group, or what else shall be neither trained on nor counted.
    name: how its annotation file calls it.
  """

  xmin: float
  ymin: float
  xmax: float
  ymax: float
  label: int
  area: float | None = None
  is_crowd: bool = False
  name: str = ""


class Problem(NamedTuple):
  """A fault of an annotation: its kind, for the counts, and a line that says where it is."""

  kind: str
  message: str

  def as_error(self) -> DatasetError:
    """What --strict makes of it."""
    return DatasetError(f"{self.message}\nMend the annotation, or have this done: no --strict.")


class AnnotatedImage(NamedTuple):
  """A picture to convert and what its annotation says of it.

  Attributes:
    path: the picture's file.
    name: its name in the data set, with / between its parts.
    source_id: its number, which detections and annotation files name it by.
    origin: where its annotation is, for messages.
    size: (height, width) that the annotation claims, None where it does not.
    boxes: its boxes, unchecked.
    problems: what is known to be wrong with other boxes of it.
    fault: why it cannot be converted at all, if that is known.
  """

  path: str
  name: str
  source_id: int
  origin: str
  size: tuple[int, int] | None = None
  boxes: Sequence[Box] = ()
  problems: Sequence[Problem] = ()
  fault: str | None = None


class CheckedImage(NamedTuple):
  """A converted picture: the boxes that are left lie inside of it."""

  source_id: int
  name: str
  height: int
  width: int
  boxes: Sequence[Box]


def check_boxes(
  image: AnnotatedImage, height: int, width: int, class_names: Sequence[str]
) -> tuple[list[Box], list[Problem]]:
  """Keeps the sound boxes of an image, cut off at its edges, and says what was wrong with others.

  Boxes with coordinates that are no finite numbers, with swapped corners, empty ones and those
  outside of the picture are dropped; so are those of which less than a pixel lies inside. Boxes
  partly outside are clipped. Up to a pixel outside is rounding: clipped without a word.

  Args:
    image: the image and its boxes.
    height: height of the picture in pixels.
    width: its width.
    class_names: class names in the order of the labels.

  Returns:
    The boxes to keep, each with its area, and all problems of the image.
  """
  kept, problems = [], list(image.problems)
  for box in image.boxes:
    sound, kind = _checked(box, height, width)
    if sound:
      kept.append(sound)
    if kind:
      corners = f"x {box.xmin:g} to {box.xmax:g}, y {box.ymin:g} to {box.ymax:g}"
      problems.append(
        Problem(
          kind,
          f"{image.origin}: {box.name} ({class_names[box.label]}, {corners}) in {width}x{height} "
          f"pixels: {kind}, {'clipped' if sound else 'dropped'}",
        )
      )
  return kept, problems


def _checked(box: Box, height: int, width: int) -> tuple[Box | None, str | None]:
  """Returns what is left of a box and the kind of its problem."""
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
  side = min(sides)
  if side <= 0 or (excess > _ROUNDING and side < _ROUNDING):
    return None, "outside of the picture"
  if box.area is None:
    inside = inside._replace(area=math.prod(sides))
  return inside, "partly outside of the picture" if excess > _ROUNDING else None
