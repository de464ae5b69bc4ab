"""`pointwise_product` equals `tf.tensordot`, whatever sizes are unknown when the graph is built."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops.pointwise import pointwise_product


@pytest.mark.parametrize("unknown", [(), (0,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("batch", [0, 2])
def test_equals_tensordot(batch, unknown):
  draw = np.random.default_rng(0).normal
  inputs = tf.constant(draw(size=(batch, 3, 4, 5)))
  kernel = tf.constant(draw(size=(5, 6)))
  shape = [None if axis in unknown else size for axis, size in enumerate(inputs.shape)]
  function = tf.function(pointwise_product, autograph=False)
  received = function.get_concrete_function(tf.TensorSpec(shape, inputs.dtype), kernel)(
    inputs, kernel
  )
  np.testing.assert_allclose(received, tf.tensordot(inputs, kernel, 1))
