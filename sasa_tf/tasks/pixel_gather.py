"""Moves the pixels of each image of a batch by indices of its own."""

from __future__ import annotations

import tensorflow as tf


def gather_pixels(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
  """Returns for each image its pixels at the given rows and columns.

  Args:
    images: [B, H, W, C].
    rows: [B or 1, H], from 0 to H - 1.
    columns: [B or 1, W], from 0 to W - 1.

  Returns:
    [B, H, W, C].
  """
  batch, height, width, channels = tf.unstack(tf.shape(images))
  # One gather of pixels is faster than one along each axis.
  first = tf.range(batch)[:, None, None] * (height * width)
  pixels = first + rows[:, :, None] * width + columns[:, None, :]
  gathered = tf.gather(tf.reshape(images, [-1, channels]), pixels)
  return tf.ensure_shape(gathered, images.shape)
