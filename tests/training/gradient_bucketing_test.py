"""Gradients are flattened to buckets and back."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.training.step.gradient_bucketing import GradientBuckets


@pytest.fixture
def gradients():
  random = np.random.default_rng(0)
  shapes = [(3, 2), (), (5,), (2, 2, 2), (1, 4)]
  dtypes = [tf.float32, tf.float32, tf.bfloat16, tf.float32, tf.bfloat16]
  return [tf.cast(random.normal(size=s), d) for s, d in zip(shapes, dtypes, strict=True)]


@pytest.mark.parametrize(
  ("max_bytes", "sizes"),
  [
    (None, [15, 9]),  # one bucket per dtype
    (40, [7, 9, 8]),  # 28 bytes of float32, 18 of bfloat16, and 32 that do not fit with the 28
    (0, [6, 1, 5, 8, 4]),
  ],
)
def test_unflatten_inverts_flatten(gradients, max_bytes, sizes):
  buckets = GradientBuckets(gradients, max_bytes)
  flat = buckets.flatten(gradients)
  assert [bucket.shape.as_list() for bucket in flat] == [[size] for size in sizes]
  restored = buckets.unflatten(flat)
  assert len(restored) == len(gradients)
  for value, expected in zip(restored, gradients, strict=True):
    assert value.dtype == expected.dtype and value.shape == expected.shape
    np.testing.assert_array_equal(tf.cast(value, tf.float32), tf.cast(expected, tf.float32))
