"""Every implementation matches the reference, output and gradients, in every dtype and mode."""

import functools

import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops.cases import (
  CASES,
  FEW,
  TOLERANCE,
  Case,
  assert_close,
  attention,
  inputs,
  most_precise_dtype,
  output_and_gradients,
)

IMPLEMENTATIONS = ops.available_implementations()
OTHERS = IMPLEMENTATIONS[1:]


def _expected(case, tensors, **arguments):
  exact = [None if t is None else tf.cast(t, tf.float64) for t in tensors]
  return output_and_gradients(attention(case, "reference", **arguments), exact)


def _run(case, implementation, tensors, mode="eager", **arguments):
  compute = functools.partial(output_and_gradients, attention(case, implementation, **arguments))
  if mode == "eager":
    return compute(tensors)
  signature = None
  if mode == "unknown":
    _, _, _, heads, depth = case.shape
    maps = tf.TensorSpec([None, None, None, heads, depth], tensors[0].dtype)
    signature = [[maps] * 3 + [tf.TensorSpec(t.shape, t.dtype) for t in tensors[3:5]] + [maps]]
  return tf.function(compute, input_signature=signature, jit_compile=mode == "jit")(tensors)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", OTHERS)
def test_eager_matches_reference(implementation, name, dtype):
  if dtype.size > most_precise_dtype(implementation).size:
    pytest.skip(f"{implementation} does not take {dtype.name}")
  tensors = inputs(CASES[name], dtype)
  actual = _run(CASES[name], implementation, tensors)
  assert actual[0].dtype == dtype
  assert_close(actual, _expected(CASES[name], tensors), TOLERANCE[dtype])


@pytest.mark.parametrize("mode", ["function", "unknown", "jit"])
@pytest.mark.parametrize(
  "name", [*FEW, *[pytest.param(n, marks=pytest.mark.slow) for n in CASES if n not in FEW]]
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_execution_modes_match_reference(implementation, name, mode):
  tensors = inputs(CASES[name], tf.float32)
  actual = _run(CASES[name], implementation, tensors, mode)
  assert_close(actual, _expected(CASES[name], tensors), TOLERANCE[tf.float32])


@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(
  "name",
  [FEW[1], *[pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != FEW[1]]],
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_half_precision_matches_reference(implementation, name, dtype, mode):
  tensors = inputs(CASES[name], dtype)
  tensors[3:5] = [tf.cast(t, tf.float32) for t in tensors[3:5]]
  actual = _run(CASES[name], implementation, tensors, mode)
  assert [t.dtype for t in actual] == [dtype] * 4 + [tf.float32] * 2
  # Both tables together, because the row gradient of a one-row window is rounding error alone.
  actual, expected = (
    [*results[:4], tf.concat(results[4:], axis=0)]
    for results in (actual, _expected(CASES[name], tensors))
  )
  assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("shape", [(2, 5, 6, 2, 3), (1, 17, 16, 1, 3)], ids=str)
def test_odd_head_width_without_relative_positions(implementation, border, shape):
  case, dtype = Case(shape, (5, 5), (1, 1), border), most_precise_dtype(implementation)
  query, key, value, _, _, upstream = inputs(case, dtype)
  tensors = [query, key, value, upstream]
  actual = _run(case, implementation, tensors, scale=0.3)
  assert_close(actual, _expected(case, tensors, scale=0.3), TOLERANCE[dtype])


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("shape", [(2, 5, 6, 2, 4), (1, 17, 16, 1, 4)], ids=str)
def test_without_keys(implementation, border, shape):
  case, dtype = Case(shape, (5, 5), (1, 1), border), most_precise_dtype(implementation)
  query, _, *rest = inputs(case, dtype)

  def without_key(name):
    return lambda query, *others: attention(case, name, scale=2.0)(query, None, *others)

  results = [
    output_and_gradients(without_key(n), [query, *rest]) for n in (implementation, "reference")
  ]
  assert_close(*results, TOLERANCE[dtype])


@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("mode", ["eager", "function"])
def test_second_derivatives(implementation, mode):
  case = Case((1, 4, 5, 1, 2), (3, 3))
  dtype = most_precise_dtype(implementation)
  tensors = inputs(case, dtype)

  def penalty_gradient(name, tensors):
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      gradients = output_and_gradients(attention(case, name), tensors)[1:]
      penalty = tf.add_n([tf.reduce_sum(g**3) for g in gradients])
    return tape.gradient(penalty, tensors)

  compute = functools.partial(penalty_gradient, implementation)
  actual = (tf.function(compute) if mode == "function" else compute)(tensors)
  assert_close(actual, penalty_gradient("reference", tensors), 10 * TOLERANCE[dtype])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_extreme_logits_stay_finite(implementation):
  case = Case((1, 9, 17, 1, 2), (3, 3), border="mask")
  tensors = inputs(case, tf.float32)
  tensors[:2] = [300.0 * t for t in tensors[:2]]
  for tensor in _run(case, implementation, tensors):
    assert bool(tf.reduce_all(tf.math.is_finite(tensor)))
