"""Value mixtures against nested loops, numeric gradients and M separate projections."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops import stem_oracle
from tests.ops.cases import TOLERANCE, assert_close, output_and_gradients

# (B, H, W), (block rows, block columns)
CASES = {
  "divisible": ((2, 8, 12), (4, 4)),
  "ragged": ((2, 7, 9), (4, 4)),
  "one_pixel": ((1, 1, 1), (4, 4)),
  "one_row": ((1, 1, 6), (4, 4)),
  "smaller_than_a_block": ((1, 3, 2), (4, 4)),
  "block_not_square": ((1, 5, 8), (2, 3)),
  "block_1": ((1, 3, 4), (1, 1)),
}
each = pytest.mark.parametrize("name", CASES)


def tensors_of(name, dtype=tf.float64, channels=3, filters=5, mixtures=3, width=4):
  """Inputs, value_kernels, embedding_rows, embedding_columns, mixture_vectors, upstream."""
  size, block = CASES[name]
  rng = np.random.default_rng(0)
  shapes = [
    (*size, channels),
    (mixtures, channels, filters),
    (block[0], width),
    (block[1], width),
    (mixtures, width),
    (*size, filters),
  ]
  return [tf.cast(tf.constant(rng.normal(size=shape)), dtype) for shape in shapes]


def mix_projections(inputs, value_kernels, embedding_rows, embedding_columns, mixture_vectors):
  """The paper's formula: all M projections of each pixel, then their mixture; full blocks only."""
  positions = embedding_rows[:, None] + embedding_columns[None]
  weights = tf.nn.softmax(tf.einsum("abe,me->abm", positions, mixture_vectors))
  _, height, width, _ = inputs.shape
  repeats = [height // positions.shape[0], width // positions.shape[1], 1]
  projections = tf.einsum("nyxc,mcf->nyxmf", inputs, value_kernels)
  return tf.einsum("yxm,nyxmf->nyxf", tf.tile(weights, repeats), projections)


@each
def test_output_matches_oracle(name):
  *tensors, _ = tensors_of(name)
  expected = stem_oracle.value_mixture(*[t.numpy() for t in tensors])
  assert_close([ops.spatial_value_mixture(*tensors)], [expected], 1e-12)


@pytest.mark.parametrize("name", ["ragged", "block_not_square"])
def test_gradients_match_numeric_gradients(name):
  tensors = tensors_of(name, channels=2, filters=2, mixtures=2, width=2)
  *sources, upstream = [t.numpy() for t in tensors]
  _, *gradients = output_and_gradients(ops.spatial_value_mixture, tensors)
  expected = stem_oracle.numeric_gradients(stem_oracle.value_mixture, sources, upstream)
  for gradient, numeric in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


def test_mixing_matrices_equals_mixing_projections():
  tensors = tensors_of("divisible")
  assert_close(
    output_and_gradients(ops.spatial_value_mixture, tensors),
    output_and_gradients(mix_projections, tensors),
    1e-12,
  )


@pytest.mark.parametrize("mode", ["function", "unknown", "jit"])
@pytest.mark.parametrize("name", ["divisible", "ragged", "one_pixel"])
def test_modes(name, mode):
  tensors = tensors_of(name, tf.float32)
  signature = None
  if mode == "unknown":
    maps = [tf.TensorSpec([None, None, None, t.shape[3]]) for t in (tensors[0], tensors[-1])]
    signature = [[maps[0], *[tf.TensorSpec(t.shape) for t in tensors[1:-1]], maps[1]]]
  compute = tf.function(
    lambda tensors: output_and_gradients(ops.spatial_value_mixture, tensors),
    input_signature=signature,
    jit_compile=mode == "jit",
  )
  expected = output_and_gradients(ops.spatial_value_mixture, tensors_of(name))
  assert_close(compute(tensors), expected, TOLERANCE[tf.float32])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=lambda dtype: dtype.name)
def test_half_precision(dtype, jit):
  inputs, *weights, upstream = tensors_of("ragged", dtype)
  tensors = [inputs, *[tf.cast(t, tf.float32) for t in weights], upstream]
  compute = tf.function(
    lambda tensors: output_and_gradients(ops.spatial_value_mixture, tensors), jit_compile=jit
  )
  actual = compute(tensors)
  assert [t.dtype for t in actual] == [dtype] * 2 + [tf.float32] * 4
  exact = [tf.cast(t, tf.float64) for t in tensors]
  expected = output_and_gradients(ops.spatial_value_mixture, exact)
  assert_close(actual, expected, TOLERANCE[dtype])


def test_softmax_is_float32():
  rng = np.random.default_rng(0)
  tables = [tf.constant(3.0 * rng.normal(size=[n, 16]), tf.bfloat16) for n in (4, 4, 8)]
  weights = ops.spatial_mixture_weights(*tables)
  assert weights.dtype == tf.float32
  expected = stem_oracle.mixture_weights(*[tf.cast(t, tf.float64).numpy() for t in tables])
  np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_one_mixture_is_a_projection():
  inputs, kernels, rows, columns, vectors, _ = tensors_of("ragged", mixtures=1)
  result = ops.spatial_value_mixture(inputs, kernels, rows, columns, vectors)
  assert_close([result], [tf.tensordot(inputs, kernels[0], 1)], 1e-12)


def test_empty_batch():
  inputs, *weights, _ = tensors_of("ragged", tf.float32)
  assert ops.spatial_value_mixture(inputs[:0], *weights).shape == (0, 7, 9, 5)


def test_output_keeps_static_shape():
  _, *weights, _ = tensors_of("divisible", tf.float32)
  mix = tf.function(lambda x: ops.spatial_value_mixture(x, *weights))
  concrete = mix.get_concrete_function(tf.TensorSpec([None, None, 9, 3]))
  assert concrete.structured_outputs.shape.as_list() == [None, None, 9, 5]


@pytest.mark.parametrize(
  ("index", "replacement", "message"),
  [
    (0, tf.zeros([8, 8, 3]), r"inputs must have shape \[B, H, W, C\]; received \(8, 8, 3\)"),
    (0, tf.zeros([1, 8, 8, 3], tf.int32), "inputs must be floating point; received int32"),
    (1, tf.zeros([3, 4, 5]), r"value_kernels must have.*C = 3, as inputs.*received \(3, 4, 5\)"),
    (1, tf.zeros([3, 5]), r"value_kernels must have shape \[M, C, filters\]"),
    (3, tf.zeros([4, 6]), r"embedding_columns must have.*E = 4, as embedding_rows"),
    (4, tf.zeros([2, 4]), r"mixture_vectors must have.*M = 3, as value_kernels"),
  ],
)
def test_invalid_arguments(index, replacement, message):
  *tensors, _ = tensors_of("divisible", tf.float32)
  tensors[index] = replacement
  with pytest.raises(ValueError, match=message):
    ops.spatial_value_mixture(*tensors)


def test_unknown_channels():
  _, *weights, _ = tensors_of("divisible", tf.float32)
  mix = tf.function(lambda x: ops.spatial_value_mixture(x, *weights))
  with pytest.raises(ValueError, match="C known when the graph is built"):
    mix.get_concrete_function(tf.TensorSpec([1, 8, 8, None]))
