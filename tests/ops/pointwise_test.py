"""`pointwise_product` equals `tf.tensordot`, whatever sizes are unknown when the graph is built."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.pointwise import pointwise_product


@pytest.mark.parametrize("unknown", [(), (0,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("for_openvino", [False, True])
def test_equals_tensordot(batch, unknown, for_openvino):
  draw = np.random.default_rng(0).normal
  inputs = tf.constant(draw(size=(batch, 3, 4, 5)))
  kernel = tf.constant(draw(size=(5, 6)))
  shape = [None if axis in unknown else size for axis, size in enumerate(inputs.shape)]
  function = tf.function(pointwise_product, autograph=False)
  with ops.tracing_for_export(for_openvino=for_openvino):
    concrete = function.get_concrete_function(tf.TensorSpec(shape, inputs.dtype), kernel)
  received = concrete(inputs, kernel)
  np.testing.assert_allclose(received, tf.tensordot(inputs, kernel, 1))
