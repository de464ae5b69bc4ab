"""Draws scenes: handwritten digits of many sizes and colors on a smooth background."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MAX_DIGITS = 6
_DIGIT_SIZES = (0.14, 0.42)  # As fractions of the scene's size.
_PLACEMENT_ATTEMPTS = 30  # Per digit.
_MIN_GAP = 2  # Pixels between boxes.
_MAX_ROTATION = 0.25  # Radians.
_OVERSAMPLING = 4  # Resolution of a digit before its rotation, relative to after it.
_BOX_OPACITY = 0.5  # Pixels with a higher opacity are inside the box.
_MIN_CONTRAST = 0.42  # Between the luminance of ink and background, 0 to 1.


class Scene(NamedTuple):
  """An image [H, W, 3] uint8 and its boxes (xmin, ymin, xmax, ymax, digit) in pixels."""

  image: np.ndarray
  boxes: list[tuple[int, int, int, int, int]]


def draw_scene(
  size: int, digits: Sequence[tuple[int, np.ndarray]], random: np.random.Generator
) -> Scene:
  """Draws one to six digits that do not touch each other.

  Args:
    size: height and width in pixels.
    digits: (label, gray levels [8, 8] uint8) to choose from.
    random: the random generator.

  Returns:
    The scene; each box encloses the inked pixels of its digit.
  """
  image = _background(size, random)
  lightness = image.mean()
  boxes: list[tuple[int, int, int, int, int]] = []
  shares = np.exp(random.uniform(*np.log(_DIGIT_SIZES), random.integers(1, _MAX_DIGITS + 1)))
  for share in sorted(shares, reverse=True):  # Large digits first, while there is space.
    label, gray_levels = digits[random.integers(len(digits))]
    opacity = _stroke(gray_levels, max(round(share * size), 8), random)
    height, width = opacity.shape
    for _ in range(_PLACEMENT_ATTEMPTS):
      top, left = random.integers(0, [size - height + 1, size - width + 1])
      box = (int(left), int(top), int(left + width), int(top + height))
      if not any(_overlap(box, other) for other in boxes):
        part = image[top : top + height, left : left + width]
        part += opacity[..., None] * (_ink(lightness, random) - part)
        boxes.append((*box, label))
        break
  image += random.normal(0, random.uniform(0.005, 0.03), image.shape)
  return Scene((image.clip(0, 1) * 255).round().astype(np.uint8), boxes)


def draw_boxes(scene: Scene) -> np.ndarray:
  """Returns the image with boxes drawn around the digits, in one color per class."""
  image = scene.image.copy()
  for xmin, ymin, xmax, ymax, digit in scene.boxes:
    frame = np.zeros(image.shape[:2], bool)
    frame[max(ymin - 1, 0) : ymax + 1, max(xmin - 1, 0) : xmax + 1] = True
    frame[ymin:ymax, xmin:xmax] = False
    image[frame] = _color(digit / 10, 0.9, 1.0) * 255
  return image


def _background(size: int, random: np.random.Generator) -> np.ndarray:
  """Returns a gradient between two similar colors, with smooth noise: [H, W, 3] in [0, 1]."""
  hue, value = random.random(), random.choice([0.25, 0.85])
  ends = [
    _color(hue + random.normal(0, 0.07), random.uniform(0.15, 0.5), value + random.normal(0, 0.06))
    for _ in range(2)
  ]
  turn = random.uniform(0, 2 * np.pi)
  rows, columns = np.mgrid[:size, :size] / size - 0.5
  share = (rows * np.sin(turn) + columns * np.cos(turn) + 0.75)[..., None] / 1.5
  noise = _upsampled(random.normal(0, 0.03, [6, 6]), size)[..., None]
  return ends[0] * (1 - share) + ends[1] * share + noise


def _stroke(gray_levels: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
  """Returns the opacity of a smooth, slightly rotated digit: [h, w] in [0, 1], cropped."""
  fine = _upsampled(np.pad(gray_levels / 255, 2), 12 * _OVERSAMPLING)
  turn, stretch = random.uniform(-_MAX_ROTATION, _MAX_ROTATION), random.uniform(0.85, 1.2)
  extent = 12 / 8 * side  # Of the digit with its margin.
  rows, columns = np.mgrid[: round(extent), : round(extent)] - (round(extent) - 1) / 2
  turned = (
    (rows * np.cos(turn) + columns * np.sin(turn)) * stretch,
    columns * np.cos(turn) - rows * np.sin(turn),
  )
  values = _bilinear(fine, *(axis * len(fine) / extent + (len(fine) - 1) / 2 for axis in turned))
  edge = 0.5 * 8 / side + 0.08  # About one pixel wide.
  opacity = np.clip((values - 0.5) / edge + 0.5, 0, 1)
  inked = opacity > _BOX_OPACITY
  (top, bottom), (left, right) = (np.flatnonzero(inked.any(axis))[[0, -1]] for axis in (1, 0))
  return opacity[top : bottom + 1, left : right + 1]


def _ink(lightness: float, random: np.random.Generator) -> np.ndarray:
  """Returns a color that contrasts with a background of this lightness."""
  while True:
    color = _color(random.random(), random.uniform(0.3, 1), random.random())
    if abs(color @ [0.299, 0.587, 0.114] - lightness) > _MIN_CONTRAST:
      return color


def _upsampled(image: np.ndarray, size: int) -> np.ndarray:
  """Upsamples a square image by Catmull-Rom interpolation."""
  positions = (np.arange(size) + 0.5) * len(image) / size - 0.5
  x = np.abs(positions[:, None] - np.arange(len(image)))
  near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
  weights = np.where(x < 1, near, np.where(x < 2, far, 0))
  weights /= weights.sum(1, keepdims=True)
  return weights @ image @ weights.T


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Samples an image bilinearly; coordinates outside are clamped to the edge."""
  rows, columns = rows.clip(0, len(image) - 1.001), columns.clip(0, len(image) - 1.001)
  r, c = rows.astype(int), columns.astype(int)
  down, right = rows - r, columns - c
  upper = image[r, c] * (1 - right) + image[r, c + 1] * right
  lower = image[r + 1, c] * (1 - right) + image[r + 1, c + 1] * right
  return upper * (1 - down) + lower * down


def _overlap(box: tuple[int, ...], other: tuple[int, ...]) -> bool:
  return all(
    box[axis] < other[axis + 2] + _MIN_GAP and other[axis] < box[axis + 2] + _MIN_GAP
    for axis in (0, 1)
  )


def _color(hue: float, saturation: float, value: float) -> np.ndarray:
  return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, float(np.clip(value, 0, 1))))
