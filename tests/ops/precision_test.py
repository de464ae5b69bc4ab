"""Products of half-precision operands accumulate in float32 under XLA."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops import precision


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=lambda dtype: dtype.name)
def test_half_precision_product_is_float32(dtype):
  a = tf.cast(tf.random.stateless_normal([2, 5, 64], [0, 1]), dtype)
  b = tf.cast(tf.random.stateless_normal([2, 7, 64], [2, 3]), dtype)
  product = tf.function(lambda a, b: precision.product(a, b, adjoint_b=True), jit_compile=True)
  result = product(a, b)
  assert result.dtype == tf.float32
  exact = tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64), transpose_b=True)
  np.testing.assert_allclose(result, exact, atol=1e-4)


@pytest.mark.parametrize("jit", [False, True])
def test_operands_are_half_precision_only_in_xla(jit):
  seen = []

  @tf.function(jit_compile=jit)
  def trace(x):
    seen.extend(precision.product_dtype(d) for d in (tf.bfloat16, tf.float32, tf.float64))
    return x

  trace(tf.zeros([]))
  assert seen == [tf.bfloat16 if jit else tf.float32, tf.float32, tf.float64]
