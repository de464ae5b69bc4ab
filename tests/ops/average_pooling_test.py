"""`average_pool_2d` equals TensorFlow's average pooling."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops.average_pooling import average_pool_2d


def _gradients(pool, x, upstream):
  """Returns output, gradient, and the gradient's gradient with respect to `upstream`."""
  with tf.GradientTape() as outer:
    outer.watch(upstream)
    with tf.GradientTape() as inner:
      inner.watch(x)
      output = pool(x)
    first = inner.gradient(output, x, upstream)
  return output, first, outer.gradient(first, upstream, tf.square(x))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("size", "height", "width"), [(2, 6, 4), (2, 5, 8), (3, 6, 9), (3, 7, 5)])
def test_output_and_derivatives_equal_tensorflow(size, height, width, known, jit):
  generator = np.random.default_rng(0)
  x = tf.constant(generator.normal(size=(2, height, width, 3)).astype("float32"))
  upstream = generator.normal(size=(2, -(-height // size), -(-width // size), 3))
  upstream = tf.constant(upstream.astype("float32"))
  specs = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, None, None, 3])]

  @tf.function(jit_compile=jit, input_signature=None if known else specs, autograph=False)
  def compute(x, upstream):
    return _gradients(lambda x: average_pool_2d(x, size), x, upstream)

  expected = _gradients(lambda x: tf.nn.avg_pool2d(x, size, size, "SAME"), x, upstream)
  for got, wanted in zip(compute(x, upstream), expected, strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_empty_batch():
  x = tf.zeros([0, 4, 4, 2])
  with tf.GradientTape() as tape:
    tape.watch(x)
    output = average_pool_2d(x, 2)
  assert output.shape == (0, 2, 2, 2)
  assert tape.gradient(output, x).shape == (0, 4, 4, 2)
