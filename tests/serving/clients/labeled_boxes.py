"""Detections and images to draw."""

from typing import NamedTuple

import numpy as np


class LabeledBox(NamedTuple):
  label: int
  name: str
  score: float
  box: tuple


def gray(height, width):
  return np.full([height, width, 3], 90, np.uint8)
