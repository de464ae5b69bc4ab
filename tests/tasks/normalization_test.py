"""Normalization by rows equals Model Garden's up to rounding."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import preprocess_ops

from sasa_tf.tasks.normalization import normalize_image


@pytest.mark.parametrize("static_shape", [[5, 7, 3], [None, None, 3]])
@pytest.mark.parametrize(
  ("dtype", "offset", "scale"),
  [
    ("float32", preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB),
    ("uint8", preprocess_ops.MEAN_NORM, preprocess_ops.STDDEV_NORM),
  ],
)
def test_equals_model_garden(static_shape, dtype, offset, scale):
  @tf.function(input_signature=[tf.TensorSpec(static_shape, dtype)])
  def both(image):
    found = normalize_image(image, offset, scale)
    expected = preprocess_ops.normalize_image(image, offset, scale)
    assert found.shape == expected.shape
    return found, expected

  image = np.random.default_rng(0).uniform(0, 255, [5, 7, 3]).astype(dtype)
  found, expected = both(image)
  np.testing.assert_allclose(found, expected, rtol=3e-7)


def test_batches():
  images = np.random.default_rng(0).uniform(0, 255, [2, 5, 7, 3]).astype("float32")
  found = normalize_image(images, preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB)
  for image, normalized in zip(images, found, strict=True):
    expected = preprocess_ops.normalize_image(
      image, preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB
    )
    np.testing.assert_allclose(normalized, expected, rtol=3e-7)
