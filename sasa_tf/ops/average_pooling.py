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
  height, width, channels = inputs.shape[1:]
  if None in (height, width, channels) or height % size or width % size:
    return tf.nn.avg_pool2d(inputs, size, size, "SAME")

  @tf.custom_gradient
  def pool(inputs):
    batch = tf.shape(inputs)[0]
    rows, columns = height // size, width // size

    def gradient(upstream):
      share = tf.reshape(upstream / size**2, [batch * rows, 1, columns, 1, channels])
      blocks = tf.broadcast_to(share, [batch * rows, size, columns, size, channels])
      return tf.reshape(blocks, [batch, height, width, channels])

    return tf.nn.avg_pool2d(inputs, size, size, "SAME"), gradient

  return pool(inputs)
