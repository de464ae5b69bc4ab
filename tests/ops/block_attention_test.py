"""Block attention against nested loops, numeric gradients and global attention."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops import stem_oracle
from tests.ops.cases import TOLERANCE, assert_close, output_and_gradients

# [B, H, W, N, D], (block rows, block columns)
CASES = {
  "divisible": ((2, 8, 4, 2, 4), (4, 4)),
  "ragged": ((2, 6, 9, 2, 4), (4, 4)),
  "one_pixel": ((1, 1, 1, 1, 2), (4, 4)),
  "one_row": ((1, 1, 6, 1, 2), (4, 4)),
  "block_not_square": ((1, 3, 5, 2, 2), (2, 3)),
  "block_1": ((1, 3, 4, 1, 2), (1, 1)),
}
each = pytest.mark.parametrize("name", CASES)
relative = pytest.mark.parametrize("relative", [False, True])


def tensors_of(name, relative, dtype=tf.float64):
  """Returns query, key, value, both tables if `relative`, and an upstream gradient."""
  shape, block = CASES[name]
  rng = np.random.default_rng(0)
  tables = [(2 * length - 1, shape[4] // 2) for length in block] if relative else []
  shapes = [shape] * 3 + tables + [shape]
  return [tf.cast(tf.constant(rng.normal(size=s)), dtype) for s in shapes]


def attention(name, **arguments):
  return functools.partial(
    ops.block_attention_2d, block_size=CASES[name][1], scale=0.5, **arguments
  )


def oracle_attention(name):
  return functools.partial(stem_oracle.block_attention, block_size=CASES[name][1], scale=0.5)


@relative
@each
def test_output_matches_oracle(name, relative):
  *tensors, _ = tensors_of(name, relative)
  expected = oracle_attention(name)(*[t.numpy() for t in tensors])
  assert_close([attention(name)(*tensors)], [expected], 1e-12)


@each
def test_weights_match_oracle(name):
  query, key, _, rows, columns, _ = tensors_of(name, relative=True)
  block = CASES[name][1]
  weights = ops.block_attention_weights(query, key, rows, columns, block_size=block)
  expected = stem_oracle.block_attention_weights(
    *[t.numpy() for t in (query, key, rows, columns)], block_size=block
  )
  np.testing.assert_allclose(weights, expected, atol=1e-12)
  np.testing.assert_allclose(tf.reduce_sum(weights, [-2, -1]), np.ones(query.shape[:4]))


@relative
@pytest.mark.parametrize("name", ["one_row", "block_not_square"])
def test_gradients_match_numeric_gradients(name, relative):
  tensors = tensors_of(name, relative)
  _, *gradients = output_and_gradients(attention(name), tensors)
  *sources, upstream = [t.numpy() for t in tensors]
  expected = stem_oracle.numeric_gradients(oracle_attention(name), sources, upstream)
  for gradient, numeric in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


@relative
@pytest.mark.parametrize("mode", ["function", "unknown", "jit"])
@pytest.mark.parametrize("name", ["divisible", "ragged", "one_pixel"])
def test_modes(name, mode, relative):
  tensors = tensors_of(name, relative, tf.float32)
  signature = None
  if mode == "unknown":
    maps = tf.TensorSpec([None, None, None, *CASES[name][0][3:]])
    signature = [[maps] * 3 + [tf.TensorSpec(t.shape) for t in tensors[3:-1]] + [maps]]
  compute = tf.function(
    lambda tensors: output_and_gradients(attention(name), tensors),
    input_signature=signature,
    jit_compile=mode == "jit",
  )
  expected = output_and_gradients(attention(name), tensors_of(name, relative))
  assert_close(compute(tensors), expected, TOLERANCE[tf.float32])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=lambda dtype: dtype.name)
def test_half_precision(dtype, jit):
  tensors = tensors_of("ragged", True, dtype)
  tensors[3:5] = [tf.cast(t, tf.float32) for t in tensors[3:5]]
  compute = tf.function(
    lambda tensors: output_and_gradients(attention("ragged"), tensors), jit_compile=jit
  )
  actual = compute(tensors)
  assert [t.dtype for t in actual] == [dtype] * 4 + [tf.float32] * 2
  exact = [tf.cast(t, tf.float64) for t in tensors]
  assert_close(actual, output_and_gradients(attention("ragged"), exact), TOLERANCE[dtype])


def test_block_of_the_image_size_equals_global_attention():
  query, key, value = (tf.random.stateless_normal([2, 3, 5, 2, 4], [0, s]) for s in range(3))
  flat = [tf.reshape(tf.einsum("bhwnd->bnhwd", t), [2, 2, 15, 4]) for t in (query, key, value)]
  expected = tf.matmul(tf.nn.softmax(tf.matmul(flat[0], flat[1], transpose_b=True)), flat[2])
  expected = tf.einsum("bnhwd->bhwnd", tf.reshape(expected, [2, 2, 3, 5, 4]))
  for block_size in ((3, 5), (8, 7)):
    result = ops.block_attention_2d(query, key, value, block_size=block_size)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (6, 9), (5, 7), (1, 2)])
def test_blocks_are_aligned_with_pooling_windows(size):
  """With zero logits each pixel gets the mean of its block, as average pooling does."""
  value = tf.random.stateless_normal([2, *size, 1, 3], [0, 1])
  result = ops.block_attention_2d(tf.zeros_like(value), value, value, block_size=4)[..., 0, :]
  pooled = tf.nn.avg_pool2d(value[..., 0, :], 4, 4, "SAME")
  for pool in (tf.nn.max_pool2d, tf.nn.avg_pool2d):  # All values of a block are equal.
    np.testing.assert_allclose(pool(result, 4, 4, "SAME"), pooled, atol=1e-6)


@pytest.mark.parametrize("pixel", [(0, 0), (4, 5), (5, 8)])
def test_gradients_are_zero_outside_the_block(pixel):
  *sources, upstream = tensors_of("ragged", relative=True)
  chosen = np.zeros(upstream.shape)
  chosen[0, pixel[0], pixel[1]] = 1.0
  gradients = output_and_gradients(attention("ragged"), [*sources, chosen])
  own = np.zeros([6, 9], bool)
  for y, x in np.ndindex(6, 9):
    own[y, x] = all(
      stem_oracle.block_and_position(a, size, 4)[0] == stem_oracle.block_and_position(b, size, 4)[0]
      for a, b, size in ((y, pixel[0], 6), (x, pixel[1], 9))
    )
  for gradient in gradients[2:4]:
    magnitude = np.abs(gradient.numpy()).sum(axis=(0, 3, 4))
    assert (magnitude[~own] == 0.0).all()
    assert (magnitude[own] > 0.0).all()


@pytest.mark.parametrize("jit", [False, True])
def test_is_deterministic(jit):
  tensors = tensors_of("ragged", True, tf.float32)
  compute = tf.function(
    lambda tensors: output_and_gradients(attention("ragged"), tensors), jit_compile=jit
  )
  for first, second in zip(compute(tensors), compute(tensors), strict=True):
    np.testing.assert_array_equal(first, second)


def test_extreme_logits_stay_finite():
  tensors = tensors_of("ragged", True, tf.float32)
  tensors[:2] = [300.0 * t for t in tensors[:2]]
  for tensor in output_and_gradients(attention("ragged"), tensors):
    assert bool(tf.reduce_all(tf.math.is_finite(tensor)))


def test_empty_batch():
  query, key, value, _ = tensors_of("ragged", relative=False)
  assert attention("ragged")(query[:0], key[:0], value[:0]).shape == (0, 6, 9, 2, 4)


def test_output_keeps_static_shape():
  attend = tf.function(lambda x: ops.block_attention_2d(x, x, x))
  concrete = attend.get_concrete_function(tf.TensorSpec([None, None, 9, 2, 4]))
  assert concrete.structured_outputs.shape.as_list() == [None, None, 9, 2, 4]


X = tf.zeros([1, 8, 8, 2, 4])
TABLE = tf.zeros([7, 2])


@pytest.mark.parametrize(
  ("tensors", "arguments", "message"),
  [
    ([X, X, X], {"block_size": 0}, "block_size must be a positive int or a pair"),
    ([X[0], X, X], {}, r"query must have shape \[B, H, W, N, D\]"),
    ([X, X[:, :4], X], {}, "must have one shape.*and key"),
    ([X, X, tf.cast(X, tf.float64)], {}, "must have one dtype.*value float64"),
    ([X, X, X, TABLE], {}, "go together.*relative_columns is None"),
    ([X, X, X, TABLE, TABLE], {"block_size": 3}, r"for 2 \* block_size - 1 = \(5, 5\)"),
    ([X[..., :3], X[..., :3], X[..., :3], TABLE, TABLE], {}, "must be even with relative"),
  ],
)
def test_invalid_arguments(tensors, arguments, message):
  with pytest.raises(ValueError, match=message):
    ops.block_attention_2d(*tensors, **arguments)
