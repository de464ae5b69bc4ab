"""Counting the boxes of a split."""

import collections
import dataclasses
from collections.abc import Sequence

from sasa_tf.data.detection.boxes import CheckedImage, Problem


@dataclasses.dataclass(frozen=True)
class BoxFigures:
  """Figures of the boxes of a split.

  Attributes:
    by_class: {class name: boxes}, crowds among them, in the order of the labels.
    crowds: number of boxes marked as crowds.
    images_without: number of images without a box.
    most_in_an_image: boxes of the image that has most of them.
    problems: {kind: number of annotations with it}.
  """

  by_class: dict[str, int]
  crowds: int
  images_without: int
  most_in_an_image: int
  problems: dict[str, int]


def box_figures(
  images: Sequence[CheckedImage], problems: Sequence[Problem], categories: Sequence[dict]
) -> BoxFigures:
  """Counts boxes and problems.

  Args:
    images: the converted images of a split, at least one.
    problems: what was wrong with annotations.
    categories: {"id": label, "name": class name} for every class.

  Returns:
    The figures.
  """
  labels = collections.Counter(box.label for image in images for box in image.boxes)
  return BoxFigures(
    by_class={category["name"]: labels[category["id"]] for category in categories},
    crowds=sum(box.is_crowd for image in images for box in image.boxes),
    images_without=sum(not image.boxes for image in images),
    most_in_an_image=max(len(image.boxes) for image in images),
    problems=dict(sorted(collections.Counter(problem.kind for problem in problems).items())),
  )
