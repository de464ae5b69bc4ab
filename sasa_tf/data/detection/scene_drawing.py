"""Drawing scenes: handwritten digits in many sizes and colours before a soft background."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MOST_DIGITS = 6
_SIDES = (0.14, 0.42)  # of a digit, as shares of the scene's
_TRIES = 30  # to place a digit
_GAP = 2  # pixels between boxes, at least
_TURN = 0.25  # radians
_FINE = 4  # how many times finer a digit is drawn before it is turned
_BOX_OPACITY = 0.5  # of a pixel that counts as the digit's
_CONTRAST = 0.42  # between the brightness of the ink and that of the background, of 1


class Scene(NamedTuple):
  """A picture [H, W, 3] uint8 and (xmin, ymin, xmax, ymax, digit) of what is on it, in pixels."""

  picture: np.ndarray
  boxes: list[tuple[int, int, int, int, int]]


def draw_scene(
  size: int, digits: Sequence[tuple[int, np.ndarray]], random: np.random.Generator
) -> Scene:
  """Draws one to six digits that do not touch each other.

  Args:
    size: height and width in pixels.
    digits: (label, grey levels [8, 8] uint8) to choose from.
    random: where all chance comes from.

  Returns:
    The scene; each box encloses the inked pixels of its digit.
  """
  picture = _background(size, random)
  lightness = picture.mean()
  boxes: list[tuple[int, int, int, int, int]] = []
  shares = np.exp(random.uniform(*np.log(_SIDES), random.integers(1, _MOST_DIGITS + 1)))
  for share in sorted(shares, reverse=True):  # The large ones find no place after the small.
    label, grey_levels = digits[random.integers(len(digits))]
    opacity = _stroke(grey_levels, max(round(share * size), 8), random)
    height, width = opacity.shape
    for _ in range(_TRIES):
      top, left = random.integers(0, [size - height + 1, size - width + 1])
      box = (int(left), int(top), int(left + width), int(top + height))
      if not any(_touch(box, other) for other in boxes):
        part = picture[top : top + height, left : left + width]
        part += opacity[..., None] * (_ink(lightness, random) - part)
        boxes.append((*box, label))
        break
  picture += random.normal(0, random.uniform(0.005, 0.03), picture.shape)
  return Scene((picture.clip(0, 1) * 255).round().astype(np.uint8), boxes)


def outlined(scene: Scene) -> np.ndarray:
  """Returns the picture with the boxes drawn around the digits, a colour for each class."""
  picture = scene.picture.copy()
  for xmin, ymin, xmax, ymax, digit in scene.boxes:
    frame = np.zeros(picture.shape[:2], bool)
    frame[max(ymin - 1, 0) : ymax + 1, max(xmin - 1, 0) : xmax + 1] = True
    frame[ymin:ymax, xmin:xmax] = False
    picture[frame] = _colour(digit / 10, 0.9, 1.0) * 255
  return picture


def _background(size: int, random: np.random.Generator) -> np.ndarray:
  """A gradient between two related colours with soft clouds, [H, W, 3] of 0..1."""
  hue, value = random.random(), random.choice([0.25, 0.85])
  ends = [
    _colour(hue + random.normal(0, 0.07), random.uniform(0.15, 0.5), value + random.normal(0, 0.06))
    for _ in range(2)
  ]
  turn = random.uniform(0, 2 * np.pi)
  rows, columns = np.mgrid[:size, :size] / size - 0.5
  share = (rows * np.sin(turn) + columns * np.cos(turn) + 0.75)[..., None] / 1.5
  clouds = _enlarged(random.normal(0, 0.03, [6, 6]), size)[..., None]
  return ends[0] * (1 - share) + ends[1] * share + clouds


def _stroke(grey_levels: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
  """A smooth, slightly turned digit [h, w], opacity 0..1, without empty margins."""
  fine = _enlarged(np.pad(grey_levels / 255, 2), 12 * _FINE)
  turn, stretch = random.uniform(-_TURN, _TURN), random.uniform(0.85, 1.2)
  reach = 12 / 8 * side  # of the digit with its margin
  rows, columns = np.mgrid[: round(reach), : round(reach)] - (round(reach) - 1) / 2
  turned = (
    (rows * np.cos(turn) + columns * np.sin(turn)) * stretch,
    columns * np.cos(turn) - rows * np.sin(turn),
  )
  values = _interpolated(fine, *(axis * len(fine) / reach + (len(fine) - 1) / 2 for axis in turned))
  edge = 0.5 * 8 / side + 0.08  # A stroke's edge is about a pixel wide.
  opacity = np.clip((values - 0.5) / edge + 0.5, 0, 1)
  inked = opacity > _BOX_OPACITY
  (top, bottom), (left, right) = (np.flatnonzero(inked.any(axis))[[0, -1]] for axis in (1, 0))
  return opacity[top : bottom + 1, left : right + 1]


def _ink(lightness: float, random: np.random.Generator) -> np.ndarray:
  """A colour that stands out against a background of this lightness."""
  while True:
    colour = _colour(random.random(), random.uniform(0.3, 1), random.random())
    if abs(colour @ [0.299, 0.587, 0.114] - lightness) > _CONTRAST:
      return colour


def _enlarged(image: np.ndarray, size: int) -> np.ndarray:
  """Enlarges a square image smoothly, by cubic splines through its pixels (Catmull-Rom's)."""
  positions = (np.arange(size) + 0.5) * len(image) / size - 0.5
  x = np.abs(positions[:, None] - np.arange(len(image)))
  near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
  weights = np.where(x < 1, near, np.where(x < 2, far, 0))
  weights /= weights.sum(1, keepdims=True)
  return weights @ image @ weights.T


def _interpolated(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Reads an image between its pixels, bilinearly; beyond its edge lies the edge."""
  rows, columns = rows.clip(0, len(image) - 1.001), columns.clip(0, len(image) - 1.001)
  r, c = rows.astype(int), columns.astype(int)
  down, right = rows - r, columns - c
  upper = image[r, c] * (1 - right) + image[r, c + 1] * right
  lower = image[r + 1, c] * (1 - right) + image[r + 1, c + 1] * right
  return upper * (1 - down) + lower * down


def _touch(box: tuple[int, ...], other: tuple[int, ...]) -> bool:
  return all(
    box[axis] < other[axis + 2] + _GAP and other[axis] < box[axis + 2] + _GAP for axis in (0, 1)
  )


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
  return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, float(np.clip(value, 0, 1))))
