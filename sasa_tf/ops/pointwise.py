"""Pointwise projections: one matrix product for all pixels."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.checks import inferable_sizes, reshape_inferring, static_size


def pointwise_product(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
  """Returns `tf.tensordot(inputs, kernel, axes=1)`.

  If the batch is the only unknown size, the graph has no operations that compute shapes.

  Args:
    inputs: [B, H, W, C].
    kernel: [C, F].

  Returns:
    [B, H, W, F].
  """
  size = inferable_sizes(inputs)
  if not isinstance(size[0], int) or size[0] >= 0:
    return tf.tensordot(inputs, kernel, axes=1)
  pixels = tf.reshape(inputs, [-1, size[3]])
  return reshape_inferring(tf.matmul(pixels, kernel), [*size[:3], static_size(kernel, 1)])
