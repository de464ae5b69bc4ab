"""Drawn boxes have the right position; labels are inside the image and do not overlap."""

import numpy as np
import pytest

from sasa_tf.serving.clients import drawing, label_font

from .labeled_boxes import LabeledBox, gray


def changed_pixels(image, detections):
  """Returns which pixels differ from the image without detections, and the drawn image."""
  drawn = np.asarray(drawing.draw_detections(image, detections))
  return (drawn != np.asarray(drawing.draw_detections(image, []))).any(-1), drawn


def test_a_box_encloses_its_pixels():
  pixels, drawn = changed_pixels(gray(800, 1000), [LabeledBox(1, "ant", 0.9, (300, 200, 500, 600))])
  rows, columns = np.flatnonzero(pixels[:, 400]), np.flatnonzero(pixels[500])
  assert columns[0] == 299 and columns[-1] == 500  # including the dark outline
  assert rows[-1] == 600
  assert not pixels[300:500, 320:480].any()  # the object stays visible
  assert tuple(drawn[400, 301]) == drawing._color(1)


def test_small_images_are_enlarged_by_an_integer_factor():
  _, drawn = changed_pixels(gray(48, 100), [LabeledBox(1, "ant", 0.9, (10, 10, 20, 20))])
  assert drawn.shape == (7 * 48, 7 * 100, 3)
  _, drawn = changed_pixels(gray(700, 640), [])
  assert drawn.shape == (700, 640, 3)


@pytest.mark.parametrize("size", [(30, 40), (7, 300), (1500, 2000)])
def test_labels_are_inside_the_image_and_do_not_overlap(monkeypatch, size):
  places = []
  place = drawing._place

  def recorded(*arguments):
    places.append(place(*arguments))
    return places[-1]

  monkeypatch.setattr(drawing, "_place", recorded)
  height, width = size
  corners = [
    (0, 0, width, height),  # the full image
    (-5, -5, width / 3, height / 3),
    (width * 0.9, height * 0.9, width + 9, height + 9),
    (width / 2, height / 2, width / 2, height / 2),  # a point
  ]
  found = [
    LabeledBox(label, "a name " * 3**label, 0.5, box) for label, box in enumerate(corners, start=1)
  ]
  image = drawing.draw_detections(gray(*size), found)
  assert len(places) == 4
  for left, top, right, _ in places:
    assert left >= 0 and top >= 0 and right < image.width
  if size == (1500, 2000):  # large enough for all labels
    assert all(bottom < image.height for *_, bottom in places)
    overlaps = [drawing._overlap(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert not any(overlaps)


def test_long_names_are_truncated_and_scores_are_shown():
  _, font = label_font.legible_label("", 20)
  assert drawing._fitting("ant", font, 500) == "ant"
  cut = drawing._fitting("ant " * 100, font, 500)
  assert cut.endswith("…") and 450 < font.getlength(cut) <= 500
  low, high = (
    changed_pixels(gray(700, 700), [LabeledBox(1, "w" * 500, score, (0, 300, 700, 600))])[1]
    for score in (0.11, 0.99)
  )
  assert (low != high).any()


def test_classes_have_distinct_colors():
  colors = np.array([drawing._color(label) for label in range(1, 12)], int)
  distances = np.abs(colors[:, None] - colors).sum(-1) + 999 * np.eye(11, dtype=int)
  assert distances.min() > 60
