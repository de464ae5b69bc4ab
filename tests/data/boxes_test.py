import math

import pytest

from sasa_tf.data.detection.boxes import AnnotatedImage, Box, check_boxes
from sasa_tf.data.tfrecord.image_example import Problem

NAMES = ("background", "cat", "dog")


def _check(*corners, **options):
  image = AnnotatedImage("p", "n", 1, "a.xml", boxes=[Box(*corners, 1, name="object 1", **options)])
  boxes, problems = check_boxes(image, 24, 40, NAMES)
  return [box[:4] for box in boxes], [problem.kind for problem in problems]


@pytest.mark.parametrize("corners", [(0, 0, 40, 24), (3, 5, 20, 15), (0.25, 0, 0.5, 24)])
def test_valid_box_is_unchanged(corners):
  assert _check(*corners) == ([corners], [])


@pytest.mark.parametrize(
  ("corners", "kind"),
  [
    ((20, 5, 3, 15), "swapped corners"),
    ((3, 15, 20, 5), "swapped corners"),
    ((3, 5, 3, 15), "empty"),
    ((3, 5, 20, 5), "empty"),
    ((41, 5, 60, 15), "outside the image"),
    ((-9, 5, -2, 15), "outside the image"),
    ((3, 24, 20, 30), "outside the image"),
    ((39.5, 5, 60, 15), "outside the image"),
    ((40, 5, 40.5, 15), "outside the image"),
    ((math.nan, 5, 20, 15), "not a finite number"),
    ((3, 5, math.inf, 15), "not a finite number"),
  ],
)
def test_invalid_boxes_are_dropped(corners, kind):
  assert _check(*corners) == ([], [kind])


@pytest.mark.parametrize(
  ("corners", "inside"),
  [((-9, 5, 20, 15), (0, 5, 20, 15)), ((3, -2, 50, 99), (3, 0, 40, 24))],
)
def test_box_partly_outside_is_clipped_and_reported(corners, inside):
  assert _check(*corners) == ([inside], ["partly outside the image"])


@pytest.mark.parametrize(
  ("corners", "inside"),
  [((-1, 5, 20, 15), (0, 5, 20, 15)), ((3, -0.5, 40.99, 25), (3, 0, 40, 24))],
)
def test_up_to_a_pixel_outside_is_clipped_silently(corners, inside):
  assert _check(*corners) == ([inside], [])


def test_area_of_the_outline_or_of_the_clipped_box():
  image = AnnotatedImage("p", "n", 1, "a", boxes=[Box(-5, 0, 10, 4, 1), Box(0, 0, 3, 4, 1, 7.5)])
  boxes, _ = check_boxes(image, 24, 40, NAMES)
  assert [box.area for box in boxes] == [40, 7.5]


def test_messages_of_problems():
  known = Problem("without a class", "a.xml: object 1: without a class, dropped")
  boxes = [Box(3, 5, 3, 15, 2, name="object 2"), Box(-9.5, 5, 20, 15, 1, name="object 3")]
  image = AnnotatedImage("p", "n", 1, "a.xml", boxes=boxes, problems=[known])
  messages = [problem.message for problem in check_boxes(image, 24, 40, NAMES)[1]]
  assert messages == [
    known.message,
    "a.xml: object 2 (dog, x 3 to 3, y 5 to 15) in 40x24 pixels: empty, dropped",
    "a.xml: object 3 (cat, x -9.5 to 20, y 5 to 15) in 40x24 pixels: partly outside the "
    "image, clipped",
  ]
