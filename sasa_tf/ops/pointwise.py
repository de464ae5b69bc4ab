"""Pointwise projections: one matrix product for all pixels."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.checks import inferable_sizes, reshape_inferring, static_size
from sasa_tf.ops.export_context import exports_for_openvino


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
  if exports_for_openvino() and all(isinstance(length, int) for length in size[1:3]):
    return _of_channels_first(inputs, kernel)
  if not isinstance(size[0], int) or size[0] >= 0:
    return tf.tensordot(inputs, kernel, axes=1)
  pixels = tf.reshape(inputs, [-1, size[3]])
  return reshape_inferring(tf.matmul(pixels, kernel), [*size[:3], static_size(kernel, 1)])


def _of_channels_first(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
  """Takes the pixels from images with channels first, a transpose that cancels that of the runtime.

  Otherwise OpenVINO reorders images with channels last to a matrix by a loop over their elements,
  which takes longer than the product.
  """
  batch, height, width, channels = inferable_sizes(inputs)
  planes = tf.transpose(inputs, [0, 3, 1, 2])
  planes = reshape_inferring(planes, [batch, channels, height * width])
  pixels = tf.reshape(tf.transpose(planes, [0, 2, 1]), [-1, channels])
  return reshape_inferring(
    tf.matmul(pixels, kernel), [batch, height, width, static_size(kernel, 1)]
  )
