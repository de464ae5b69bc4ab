"""Sinusoidal positions."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops


def test_pixels_have_distinct_embeddings():
  positions = ops.sinusoidal_positions(9, 11, 16)
  assert positions.shape == [9, 11, 16]
  assert positions.dtype == tf.float32
  flat = positions.numpy().reshape(99, 16)
  distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + 9.0 * np.eye(99)
  assert distances.min() > 0.1


def test_halves_are_sinusoids_of_row_and_column():
  positions = ops.sinusoidal_positions(5, 7, 8).numpy()
  np.testing.assert_allclose(positions[3, :, 0], np.sin(3.0), rtol=1e-6)
  np.testing.assert_allclose(positions[3, :, 1], np.sin(3.0 / 100.0), rtol=1e-6)
  np.testing.assert_allclose(positions[3, :, 2], np.cos(3.0), rtol=1e-6)
  np.testing.assert_allclose(positions[:, 6, 4], np.sin(6.0), rtol=1e-6)
  np.testing.assert_allclose(positions[:, 6, 7], np.cos(6.0 / 100.0), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_any_number_of_channels(channels):
  positions = ops.sinusoidal_positions(3, 4, channels)
  assert positions.shape == [3, 4, channels]
  assert np.isfinite(positions).all()


def test_size_may_be_a_tensor():
  positions = tf.function(lambda x: ops.sinusoidal_positions(tf.shape(x)[0], tf.shape(x)[1], 6))
  np.testing.assert_allclose(positions(tf.zeros([3, 4])), ops.sinusoidal_positions(3, 4, 6))
