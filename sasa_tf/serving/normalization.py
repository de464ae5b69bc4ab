"""The normalisation that all models here were trained with."""

from __future__ import annotations

import tensorflow as tf
from official.vision.ops import preprocess_ops

# ImageNet's mean grey levels of red, green and blue; what padding is before normalisation.
MEAN = preprocess_ops.MEAN_RGB


def normalize(images: tf.Tensor) -> tf.Tensor:
  """Grey levels 0 to 255, float32 [..., 3], to zero mean and unit variance."""
  return (images - MEAN) / preprocess_ops.STDDEV_RGB
