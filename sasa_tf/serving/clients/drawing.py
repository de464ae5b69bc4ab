"""Draws detections: boxes and labels that are legible on images of any size."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sasa_tf.serving.clients.label_font import legible_label

# Images whose longer side is smaller are enlarged by an integer factor.
_MIN_LONGER_SIDE = 640
_MAX_FACTOR = 16
# Sizes as a fraction of the longer side, and their minimum in pixels.
_TEXT, _MIN_TEXT = 1 / 40, 14
_LINE, _MIN_LINE = 1 / 320, 2
_HUE_STEP = 0.618034  # from one class to the next: the golden ratio never repeats a hue

_Box = tuple[float, float, float, float]


class DrawableDetection(Protocol):
  """Interface of a detection. The box is (xmin, ymin, xmax, ymax) in pixels of the image."""

  label: int
  name: str
  score: float
  box: _Box


def draw_detections(pixels: np.ndarray, detections: Iterable[DrawableDetection]) -> Image.Image:
  """Returns the image with boxes, class names and scores, one color per class.

  Names are drawn as `legible_label` spells them.

  Args:
    pixels: uint8 [H, W, 3].
    detections: detections to draw, clipped to the image.
  """
  height, width = pixels.shape[:2]
  factor = min(_MAX_FACTOR, max(1, math.ceil(_MIN_LONGER_SIDE / max(height, width))))
  image = Image.fromarray(pixels).resize(
    (width * factor, height * factor), Image.Resampling.BICUBIC
  )
  longer = max(image.size)
  line = max(_MIN_LINE, round(longer * _LINE))
  text_size = max(_MIN_TEXT, round(longer * _TEXT))
  canvas = ImageDraw.Draw(image)
  detections = sorted(detections, key=lambda detection: -detection.score)
  boxes = [_inside(tuple(x * factor for x in d.box), image.size) for d in detections]
  for detection, box in reversed([*zip(detections, boxes, strict=True)]):
    canvas.rectangle(_grown(box, 1, image.size), outline="black", width=line + 2)
    canvas.rectangle(box, outline=_color(detection.label), width=line)
  labels: list[_Box] = []
  for detection, box in zip(detections, boxes, strict=True):
    name, font = legible_label(detection.name, text_size)
    score = f" {detection.score:.0%}"
    available = image.width - 2 * line - font.getlength(score)
    text = _fitting(name, font, available) + score
    size = (font.getlength(text) + 2 * line, sum(font.getmetrics()) + line)
    place = _place(box, size, image.size, labels, [b for b in boxes if b is not box])
    labels.append(place)
    color = _color(detection.label)
    canvas.rectangle(place, fill=color)
    brightness = np.dot(color, [0.299, 0.587, 0.114])
    ink = "black" if brightness > 140 else "white"
    canvas.text((place[0] + line, place[1] + line / 2), text, ink, font)
  return image


def _color(label: int) -> tuple[int, int, int]:
  red, green, blue = colorsys.hsv_to_rgb(label * _HUE_STEP % 1, 0.85, 1.0)
  return round(255 * red), round(255 * green), round(255 * blue)


def _inside(box: _Box, size: tuple[int, int]) -> _Box:
  """Rounds a box to pixels and clips it to an image of size (width, height)."""
  right, bottom = (side - 1 for side in size)
  xmin, ymin, xmax, ymax = (round(x) for x in box)
  xmin, ymin = min(max(xmin, 0), right), min(max(ymin, 0), bottom)
  return xmin, ymin, max(xmin, min(xmax - 1, right)), max(ymin, min(ymax - 1, bottom))


def _grown(box: _Box, by: int, size: tuple[int, int]) -> _Box:
  return _inside((box[0] - by, box[1] - by, box[2] + by + 1, box[3] + by + 1), size)


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
  """Truncates a text that is wider than `width`."""
  if font.getlength(text) <= width:
    return text
  while text and font.getlength(f"{text}…") > width:
    text = text[:-1]
  return f"{text}…"


def _place(
  box: _Box,
  size: tuple[float, float],
  image_size: tuple[int, int],
  labels: Sequence[_Box],
  boxes: Sequence[_Box],
) -> _Box:
  """Chooses the position of a box's label with the least overlap with labels, then with boxes."""
  width, height = size
  xmin, ymin, xmax, ymax = box
  tops = (ymin - height, ymax, ymin, ymax - height)
  places = [
    _moved_inside((left, top, left + width, top + height), image_size)
    for top in tops
    for left in (xmin, xmax - width)
  ]

  def hidden(place: _Box) -> tuple[float, float]:
    return (
      sum(_overlap(place, other) for other in labels),
      sum(_overlap(place, other) for other in [*boxes, box]),
    )

  return min(places, key=hidden)


def _moved_inside(place: _Box, image_size: tuple[int, int]) -> _Box:
  left = max(0.0, min(place[0], image_size[0] - 1 - (place[2] - place[0])))
  top = max(0.0, min(place[1], image_size[1] - 1 - (place[3] - place[1])))
  return left, top, left + place[2] - place[0], top + place[3] - place[1]


def _overlap(one: _Box, other: _Box) -> float:
  across = min(one[2], other[2]) - max(one[0], other[0])
  down = min(one[3], other[3]) - max(one[1], other[1])
  return max(across, 0) * max(down, 0)
