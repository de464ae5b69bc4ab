"""Average pooling in the place of strides (paper Sec. 3.1)."""

from __future__ import annotations

import tensorflow as tf


def average_pool_2d(inputs: tf.Tensor, size: int) -> tf.Tensor:
  """As `tf.nn.avg_pool2d(inputs, size, size, "SAME")`, with a gradient that XLA compiles well.

  XLA makes the gradient of an average pooling a windowed sum over upstream numbers and zeros
  between them, which takes five times as long on a GPU as to write it. Where no block reaches
  beyond the image, each pixel has its share of one upstream number, and no sum is needed.

  Args:
    inputs: [B, H, W, C].
    size: of the blocks, in pixels.

  Returns:
    [B, ceil(H / size), ceil(W / size), C], means over the pixels of each block that exist.
  """
  height, width = inputs.shape[1:3]
  if None in (height, width) or height % size or width % size:
    return tf.nn.avg_pool2d(inputs, size, size, "SAME")

  @tf.custom_gradient
  def pool(inputs):
    def gradient(upstream):
      return tf.repeat(tf.repeat(upstream / size**2, size, axis=1), size, axis=2)

    return tf.nn.avg_pool2d(inputs, size, size, "SAME"), gradient

  return pool(inputs)
