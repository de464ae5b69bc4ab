"""Normalization of images, as in the training."""

from __future__ import annotations

import tensorflow as tf
from official.vision.ops import preprocess_ops

# ImageNet's mean color (RGB). Zero padding of normalized images corresponds to this color.
MEAN = preprocess_ops.MEAN_RGB


def normalize(images: tf.Tensor) -> tf.Tensor:
  """Normalizes images float32 [..., 3] with values from 0 to 255 to zero mean and unit variance."""
  return (images - MEAN) / preprocess_ops.STDDEV_RGB


def denormalize(images: tf.Tensor) -> tf.Tensor:
  """Inverse of `normalize`."""
  return images * preprocess_ops.STDDEV_RGB + MEAN
