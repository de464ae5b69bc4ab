"""Normalization of images by rows, equal to Model Garden's and faster on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from official.vision.ops import preprocess_ops


def normalize_image(
  image: tf.Tensor,
  offset: Sequence[float] = preprocess_ops.MEAN_NORM,
  scale: Sequence[float] = preprocess_ops.STDDEV_NORM,
) -> tf.Tensor:
  """Returns (image - offset) / scale in float32, as `preprocess_ops.normalize_image`.

  Args:
    image: [..., H, W, C] of known rank. Integers are scaled to [0, 1] first.
    offset: a number for each channel.
    scale: likewise.
  """
  image = tf.image.convert_image_dtype(image, tf.float32)
  width = image.shape[-2] or tf.shape(image)[-2]
  shape = tf.shape(image)
  # Rows of W * C values instead of pixels of C, which are too short for vector instructions.
  rows = tf.reshape(image, tf.concat([shape[:-2], [width * len(offset)]], axis=0))
  mean, stddev = (tf.tile(tf.constant(values), [width]) for values in (offset, scale))
  return tf.ensure_shape(tf.reshape((rows - mean) / stddev, shape), image.shape)
