"""Groups gradients into a few flat buckets, so that an all-reduce sends few large messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf


class GradientBuckets:
  """The assignment of gradients to buckets, computed once from their static shapes."""

  def __init__(
    self,
    gradients: Sequence[tf.Tensor],
    max_bytes: int | None = None,
    last_first: bool = False,
  ):
    """Assigns each gradient to a bucket of its dtype.

    Args:
      gradients: tensors with static shapes. Their values are not used.
      max_bytes: maximum size of a bucket. A larger gradient gets a separate bucket. None for
        one bucket per dtype.
      last_first: whether the first bucket has the last gradients. The backward pass computes those
        of the last layers first.
    """
    self._shapes = [tuple(gradient.shape) for gradient in gradients]
    self._buckets: list[list[int]] = []  # indices of the gradients of each bucket
    open_buckets: dict[tf.DType, tuple[list[int], int]] = {}
    pairs = list(enumerate(gradients))
    for index, gradient in reversed(pairs) if last_first else pairs:
      size = math.prod(self._shapes[index]) * gradient.dtype.size
      members, filled = open_buckets.get(gradient.dtype, (None, 0))
      if members is None or (max_bytes is not None and filled + size > max_bytes):
        members, filled = [], 0
        self._buckets.append(members)
      members.append(index)
      open_buckets[gradient.dtype] = members, filled + size

  def split(self, gradients: Sequence[tf.Tensor]) -> list[list[tf.Tensor]]:
    """Returns the gradients of each bucket."""
    return [[gradients[index] for index in members] for members in self._buckets]

  def join(self, buckets: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
    """Returns the gradients of all buckets in their original order."""
    gradients: list[tf.Tensor | None] = [None] * len(self._shapes)
    for members, bucket in zip(self._buckets, buckets, strict=True):
      for index, gradient in zip(members, bucket, strict=True):
        gradients[index] = gradient
    return gradients

  def flatten(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the buckets as one tensor of rank 1 each."""
    return [
      tf.concat([tf.reshape(gradient, [-1]) for gradient in bucket], axis=0)
      for bucket in self.split(gradients)
    ]

  def unflatten(self, buckets: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the gradients of flat buckets in their original order and shapes."""
    parts = []
    for members, bucket in zip(self._buckets, buckets, strict=True):
      shapes = [self._shapes[index] for index in members]
      flat = tf.split(bucket, [math.prod(shape) for shape in shapes])
      parts.append([tf.reshape(part, shape) for part, shape in zip(flat, shapes, strict=True)])
    return self.join(parts)
