"""Random flips of the images of a batch."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.tasks.pixel_gather import gather_pixels


def random_flip(images: tf.Tensor) -> tf.Tensor:
  """Flips each image [B, H, W, C] from left to right with probability 0.5."""
  batch, height, width, _ = tf.unstack(tf.shape(images))
  columns = tf.range(width)[None]
  flipped = tf.random.uniform([batch, 1]) < 0.5
  return gather_pixels(
    images, tf.range(height)[None], tf.where(flipped, width - 1 - columns, columns)
  )
