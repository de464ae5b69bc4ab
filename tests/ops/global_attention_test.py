"""Global attention against nested NumPy loops, and its errors."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops

B, H, W, N, D, V = 2, 3, 4, 2, 6, 5


def oracle(query, key, value, rows=None, columns=None, scale=1.0):
  """[B, H, W, N, V] in float64; row H - 1 + a - i of `rows` belongs to the offset a - i."""
  _, height, width, _, _ = query.shape
  output = np.zeros([*query.shape[:4], value.shape[-1]])
  for b, i, j, n in np.ndindex(*query.shape[:4]):
    q = scale * query[b, i, j, n].astype(np.float64)
    logits = np.zeros(key.shape[1:3])
    for y, x in np.ndindex(*logits.shape):
      logits[y, x] = q @ key[b, y, x, n]
      if rows is not None:
        logits[y, x] += q @ (rows[height - 1 + y - i] + columns[width - 1 + x - j])
    weights = np.exp(logits - logits.max())
    output[b, i, j, n] = np.einsum("yx,yxv->v", weights / weights.sum(), value[b, :, :, n])
  return output


def draw(*shape, seed=0):
  return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def qkv(keys=(H, W)):
  return draw(B, H, W, N, D, seed=1), draw(B, *keys, N, D, seed=2), draw(B, *keys, N, V, seed=3)


def tables():
  return draw(2 * H - 1, D, seed=4), draw(2 * W - 1, D, seed=5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("relative", [(), tables()], ids=["none", "relative"])
def test_output_matches_oracle(relative, compiled):
  function = tf.function(ops.global_attention_2d, jit_compile=True) if compiled else None
  result = (function or ops.global_attention_2d)(*qkv(), *relative, scale=0.5)
  np.testing.assert_allclose(result, oracle(*qkv(), *relative, scale=0.5), atol=1e-5)


def test_keys_of_different_size():
  inputs = qkv(keys=(1, 2))
  np.testing.assert_allclose(ops.global_attention_2d(*inputs), oracle(*inputs), atol=1e-5)


def test_equals_local_attention_with_a_window_of_the_image_size():
  query, key, value = (draw(B, H, W, N, D, seed=seed) for seed in range(3))
  local = ops.local_attention_2d(
    query, key, value, kernel_size=(2 * H - 1, 2 * W - 1), border="mask"
  )
  np.testing.assert_allclose(ops.global_attention_2d(query, key, value), local, atol=1e-5)


def test_gradients_match_numeric_gradients():
  inputs = [tf.constant(x, tf.float64) for x in (*qkv(), *tables())]

  def loss(*inputs):
    return tf.reduce_sum(tf.sin(3.0 * ops.global_attention_2d(*inputs)))

  with tf.GradientTape() as tape:
    tape.watch(inputs)
    result = loss(*inputs)
  rng = np.random.default_rng(0)
  for index, gradient in enumerate(tape.gradient(result, inputs)):
    direction = rng.normal(size=gradient.shape)
    above, below = (
      loss(*inputs[:index], inputs[index] + step * direction, *inputs[index + 1 :])
      for step in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(
      np.sum(gradient * direction), (above - below) / 2e-5, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_uses_float32_softmax(dtype):
  inputs = [tf.cast(x, dtype) for x in (*qkv(), *tables())]
  result = ops.global_attention_2d(*inputs)
  assert result.dtype == dtype
  expected = oracle(*(tf.cast(x, tf.float32).numpy() for x in inputs))
  np.testing.assert_allclose(tf.cast(result, tf.float32), expected, atol=0.03)


def test_unknown_sizes_and_empty_batches():
  signature = [tf.TensorSpec([None, None, None, N, width]) for width in (D, D, V)]
  function = tf.function(ops.global_attention_2d, input_signature=signature)
  np.testing.assert_allclose(function(*qkv()), oracle(*qkv()), atol=1e-5)
  assert function(*(x[:0] for x in qkv())).shape == (0, H, W, N, V)


def test_tables_check_images_of_unknown_size():
  signature = [tf.TensorSpec([None, None, None, N, width]) for width in (D, D, V)]
  function = tf.function(
    lambda *inputs: ops.global_attention_2d(*inputs, *tables()), input_signature=signature
  )
  np.testing.assert_allclose(function(*qkv()), oracle(*qkv(), *tables()), atol=1e-5)
  with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
    function(*(np.concatenate([x, x], axis=1) for x in qkv()))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"query": draw(B, H, W, N)}, r"query must have shape \[B, H, W, N, D\]"),
    ({"key": draw(B, H, W, N, D + 1)}, "same B, N and D"),
    ({"value": draw(B, H, W + 1, N, V)}, "same B, H', W' and N"),
    ({"value": draw(B, H, W, N, V).astype("float64")}, "one dtype"),
    ({"relative_rows": tables()[0]}, "relative_columns is None. Pass both"),
    (
      {"relative_rows": tables()[0], "relative_columns": tables()[0]},
      r"relative_columns must have one row for each offset.*\[7, 6\].*received \(5, 6\)",
    ),
  ],
)
def test_invalid_arguments(change, message):
  query, key, value = qkv()
  with pytest.raises(ValueError, match=message):
    ops.global_attention_2d(**{"query": query, "key": key, "value": value, **change})
