"""Compact encoding of attention weights for the page."""

from __future__ import annotations

import base64
import gzip

import numpy as np

# Weights are stored as square roots in so many steps of the largest weight of their window. Colors
# show no more, and few distinct bytes compress well.
LEVELS = 63


def quantize(weights: np.ndarray, levels: int = LEVELS) -> bytes:
  """Returns uint8 square roots of windows [..., K, K], relative to the largest of each window.

  The sum of a window is 1, so that the page restores weights from the squares without a scale.
  """
  largest = weights.max(axis=(-2, -1), keepdims=True)
  roots = np.sqrt(np.maximum(weights, 0) / np.maximum(largest, 1e-30))
  return np.round(roots * levels).astype(np.uint8).tobytes()


def compress(content: bytes) -> str:
  """Returns bytes as base64 of gzip, without a time, so that equal pages are equal files."""
  return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
