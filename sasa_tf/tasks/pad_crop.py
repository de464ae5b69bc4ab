"""Random crops of images with a reflected border, the usual augmentation of small images."""

from __future__ import annotations

import tensorflow as tf


def random_pad_crop(images: tf.Tensor, padding: int) -> tf.Tensor:
  """Adds a reflected border to a batch of images, and crops each at random to its size.

  Args:
    images: [B, H, W, C].
    padding: width of the border in pixels, less than H and W.

  Returns:
    [B, H, W, C], each image moved by up to `padding` pixels in both directions.
  """
  padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]], "REFLECT")
  batch = tf.shape(images)[0]
  height, width = tf.shape(images)[1], tf.shape(images)[2]
  rows, columns = (
    tf.random.uniform([batch, 1], maxval=2 * padding + 1, dtype=tf.int32) + tf.range(size)
    for size in (height, width)
  )
  cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
  # The second gather is along the rows of the transposed images.
  cropped = tf.gather(tf.transpose(cropped, [0, 2, 1, 3]), columns, axis=1, batch_dims=1)
  return tf.ensure_shape(tf.transpose(cropped, [0, 2, 1, 3]), images.shape)
