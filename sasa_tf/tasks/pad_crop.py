"""Random crops of images with a reflected border, the usual augmentation of small images."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.tasks.pixel_gather import gather_pixels


def random_pad_crop(images: tf.Tensor, padding: int) -> tf.Tensor:
  """Adds a reflected border to a batch of images, and crops each at random to its size.

  Args:
    images: [B, H, W, C].
    padding: width of the border in pixels, less than H and W.

  Returns:
    [B, H, W, C], each image moved by up to `padding` pixels in both directions.
  """
  batch, height, width, _ = tf.unstack(tf.shape(images))
  rows, columns = (_moved_indices(batch, size, padding) for size in (height, width))
  return gather_pixels(images, rows, columns)


def _moved_indices(batch: tf.Tensor, size: tf.Tensor, padding: int) -> tf.Tensor:
  """Returns indices [B, size] along an axis, moved at random and reflected at both ends."""
  shift = tf.random.uniform([batch, 1], -padding, padding + 1, tf.int32)
  last = size - 1
  return last - tf.abs(last - tf.abs(shift + tf.range(size)))
