"""Gradients in a few flat buffers, so that replicas exchange a few large messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf


class GradientBuckets:
  """Where each gradient lies in the buffers: planned once, from static shapes."""

  def __init__(self, gradients: Sequence[tf.Tensor], max_bytes: int | None = None):
    """Plans the buffers.

    Args:
      gradients: of fully known shapes; their values do not matter.
      max_bytes: that a buffer may have, unless a single gradient has more; None for one buffer of
        each dtype.
    """
    self._shapes = [tuple(gradient.shape) for gradient in gradients]
    self._buffers: list[list[int]] = []  # indices of the gradients in each
    open_buffers: dict[tf.DType, tuple[list[int], int]] = {}
    for index, gradient in enumerate(gradients):
      size = math.prod(self._shapes[index]) * gradient.dtype.size
      members, filled = open_buffers.get(gradient.dtype, (None, 0))
      if members is None or (max_bytes is not None and filled + size > max_bytes):
        members, filled = [], 0
        self._buffers.append(members)
      members.append(index)
      open_buffers[gradient.dtype] = members, filled + size

  def flatten(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the buffers, each of rank 1."""
    return [
      tf.concat([tf.reshape(gradients[index], [-1]) for index in members], axis=0)
      for members in self._buffers
    ]

  def unflatten(self, buffers: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the gradients, in their order and shapes."""
    gradients: list[tf.Tensor | None] = [None] * len(self._shapes)
    for members, buffer in zip(self._buffers, buffers, strict=True):
      sizes = [math.prod(self._shapes[index]) for index in members]
      for index, flat in zip(members, tf.split(buffer, sizes), strict=True):
        gradients[index] = tf.reshape(flat, self._shapes[index])
    return gradients
