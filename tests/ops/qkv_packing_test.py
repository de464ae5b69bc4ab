"""Attention of packed query, key and value equals that of separate tensors, bit for bit."""

import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops.cases import Case, inputs

CASE = Case((2, 9, 11, 3, 8), (5, 7), border="mask")


def _values_and_gradients(function, tensors):
  with tf.GradientTape() as tape:
    tape.watch(tensors)
    output = function(*tensors)
    loss = tf.reduce_sum(tf.cast(output, tf.float32) ** 2)
  return output, tape.gradient(loss, tensors)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("omitted", ["", "key", "tables"])
@pytest.mark.parametrize(
  ("implementation", "mode"),
  [
    (name, mode)
    for name in ops.available_implementations()
    # XLA fuses the others differently for packed and separate tensors.
    for mode in (["eager", "graph", "jit"] if name == "fused" else ["graph"])
  ],
)
def test_packed_equals_unpacked_bit_for_bit(implementation, mode, omitted, dtype):
  query, key, value, rows, columns, _ = inputs(CASE, dtype)
  maps = [query, value] if omitted == "key" else [query, key, value]
  tables = [] if omitted == "tables" else [tf.cast(t, tf.float32) for t in (rows, columns)]
  arguments = {
    "kernel_size": CASE.kernel_size,
    "border": CASE.border,
    "scale": 0.5,
    "implementation": implementation,
  }

  def unpacked(*tensors):
    query, *key, value = tensors[: len(maps)]
    key = key[0] if key else None
    return ops.local_attention_2d(query, key, value, *tensors[len(maps) :], **arguments)

  def packed(qkv, *tables):
    return ops.local_attention_2d_qkv_packed(qkv, *tables, **arguments)

  def run(function, tensors):
    compute = lambda: _values_and_gradients(function, tensors)  # noqa: E731
    return tf.function(compute, jit_compile=mode == "jit")() if mode != "eager" else compute()

  output, gradients = run(unpacked, [*maps, *tables])
  found, (d_qkv, *d_tables) = run(packed, [tf.stack(maps, axis=3), *tables])
  tf.debugging.assert_equal(found, output)
  for a, b in zip([*tf.unstack(d_qkv, axis=3), *d_tables], gradients, strict=True):
    tf.debugging.assert_equal(a, b)


@pytest.mark.parametrize("implementation", ops.available_implementations())
@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
@pytest.mark.parametrize("known", [True, False], ids=["sizes", "no sizes"])
def test_pooling_matches_avg_pool2d(implementation, size, known):
  qkv = tf.random.stateless_normal([2, *size, 3, 2, 4], [1, 2])
  signature = [tf.TensorSpec(qkv.shape if known else [None, None, None, 3, 2, 4])]

  @tf.function(input_signature=signature)
  def pooled(qkv):
    return ops.local_attention_2d_qkv_packed(
      qkv, kernel_size=3, implementation=implementation, pool_size=2
    )

  def unpacked(qkv):
    output = ops.local_attention_2d(*tf.unstack(qkv, axis=3), kernel_size=3)
    flat = tf.reshape(output, [2, *size, 8])
    means = tf.nn.avg_pool2d(flat, 2, 2, "SAME")
    return tf.reshape(means, [*means.shape[:3], 2, 4])

  found, gradients = _values_and_gradients(pooled, [qkv])
  output, expected = _values_and_gradients(unpacked, [qkv])
  tf.debugging.assert_near(found, output, rtol=1e-5, atol=1e-5)
  tf.debugging.assert_near(gradients[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)
def test_dynamic_sizes_and_second_derivatives():
  function = tf.function(
    lambda qkv: ops.local_attention_2d_qkv_packed(qkv, kernel_size=3, implementation="fused"),
    input_signature=[tf.TensorSpec([None, None, None, 3, 2, 4])],
  )
  for size in ((1, 4, 5), (2, 3, 3), (0, 3, 3)):
    qkv = tf.random.stateless_normal([*size, 3, 2, 4], [1, 2])
    query, key, value = tf.unstack(qkv, axis=3)
    expected = ops.local_attention_2d(query, key, value, kernel_size=3, implementation="reference")
    tf.debugging.assert_near(function(qkv), expected)

  def second(implementation):
    x = tf.random.stateless_normal([1, 3, 4, 3, 1, 4], [3, 4])
    with tf.GradientTape() as outer:
      outer.watch(x)
      with tf.GradientTape() as inner:
        inner.watch(x)
        y = ops.local_attention_2d_qkv_packed(x, kernel_size=3, implementation=implementation)
      gradient = inner.gradient(y, x)
    return outer.gradient(gradient, x)

  tf.debugging.assert_near(second("fused"), second("reference"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("shape", "dtype", "message"),
  [
    ([1, 4, 4, 4, 1, 8], tf.float32, r"\[B, H, W, 3, N, D\].*received \(1, 4, 4, 4, 1, 8\)"),
    ([1, 4, 4, 3, 8], tf.float32, "received"),
    ([1, 4, 4, 3, 1, 8], tf.int32, "must be floating point; received int32"),
    ([1, 4, 4, 2, 1, 8], tf.float32, "attention without keys needs relative_rows"),
  ],
)
def test_invalid_arguments(shape, dtype, message):
  with pytest.raises(ValueError, match=message):
    ops.local_attention_2d_qkv_packed(tf.zeros(shape, dtype))
