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


def average_pool_heads(outputs: tf.Tensor, size: int) -> tf.Tensor:
  """As `average_pool_2d`, of the outputs of heads.

  Args:
    outputs: [B, H, W, N, D].
    size: of the blocks, in pixels.

  Returns:
    [B, ceil(H / size), ceil(W / size), N, D].
  """
  if size == 1:
    return outputs
  heads = outputs.shape[3:]
  flat = tf.reshape(outputs, tf.concat([tf.shape(outputs)[:3], [heads.num_elements()]], axis=0))
  pooled = average_pool_2d(tf.ensure_shape(flat, [*outputs.shape[:3], None]), size)
  return tf.reshape(pooled, tf.concat([tf.shape(pooled)[:3], heads], axis=0))
