"""Derivatives in unusual modes: one tensor as several arguments, forward mode, vectorization."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.derivatives import distinct, vector_jacobian_product
from sasa_tf.ops.stem.absorbed_attention import block_attention_2d_absorbed
from sasa_tf.ops.xla_barriers import use_target_device
from tests.ops import oracle
from tests.ops.cases import TOLERANCE, Case, assert_close, attention, inputs, most_precise_dtype

NAMES = ("query", "key", "value", "relative_rows", "relative_columns")
# Pairs of arguments that can be the same tensor.
PAIRS = [*itertools.combinations(range(3), 2), (3, 4)]
CASES = {
  "one_block": Case((1, 4, 5, 1, 2), (3, 3)),
  "blocks": Case((1, 5, 14, 1, 2), (3, 3), (1, 1), "mask"),
}
each = pytest.mark.parametrize("implementation", ops.available_implementations())


def shared(tensors, pair):
  """Returns the tensors with the first of the pair also in the place of the second."""
  tensors = list(tensors)
  tensors[pair[1]] = tensors[pair[0]]
  return tensors


def gradients(attend, tensors, upstream):
  with tf.GradientTape() as tape:
    tape.watch(tensors)
    output = attend(*tensors)
  return [output, *tape.gradient(output, tensors, upstream)]


def penalty_gradients(attend, tensors, upstream):
  """Gradients of a function of first gradients, with respect to the tensors and the upstream."""
  every = [*tensors, upstream]
  with tf.GradientTape() as tape:
    tape.watch(every)
    first = gradients(attend, tensors, upstream)[1:]
    penalty = tf.add_n([tf.reduce_sum(tf.cast(gradient, tf.float64) ** 3) for gradient in first])
  return tape.gradient(penalty, every)


def summed(results, pair):
  """The gradient of a tensor that is both arguments of the pair is the sum of their gradients."""
  results = list(results)
  results[pair[0]] = results[pair[1]] = results[pair[0]] + results[pair[1]]
  return results


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{NAMES[p[0]]} is {NAMES[p[1]]}")
@each
def test_one_tensor_as_two_arguments(implementation, pair, name):
  case, dtype = CASES[name], most_precise_dtype(implementation)
  *tensors, upstream = inputs(case, dtype)
  tensors = shared(tensors, pair)
  copies = [tf.cast(t, tf.float64) + 0.0 for t in [*tensors, upstream]]
  expected, *d = gradients(attention(case, "reference"), copies[:-1], copies[-1])
  numpy = oracle.local_attention(*[t.numpy() for t in tensors], **case.arguments)
  np.testing.assert_allclose(expected, numpy, atol=1e-4 if dtype == tf.float32 else 1e-12)
  actual = gradients(attention(case, implementation), tensors, upstream)
  assert_close(actual, [expected, *summed(d, pair)], TOLERANCE[dtype])


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (3, 4)], ids=str)
@each
def test_second_derivatives_of_one_tensor_as_two_arguments(implementation, pair):
  case, dtype = CASES["one_block"], most_precise_dtype(implementation)
  *tensors, upstream = inputs(case, dtype)
  tensors = shared(tensors, pair)

  def penalty(implementation, copy):
    def attend(*arguments):
      return attention(case, implementation)(*[copy(a) for a in arguments])

    return penalty_gradients(attend, [*tensors], upstream)

  expected = penalty("reference", tf.identity)
  assert_close(penalty(implementation, lambda x: x), expected, 100 * TOLERANCE[dtype])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=lambda dtype: dtype.name)
@each
def test_second_derivatives_in_half_precision(implementation, dtype, jit_compile):
  case = CASES["one_block"]
  tensors = [tf.cast(t, dtype if t.shape.rank == 5 else tf.float32) for t in inputs(case)]
  *tensors, upstream = tensors
  attend = attention(case, implementation)
  run = tf.function(
    lambda *every: penalty_gradients(attend, every[:-1], every[-1]),
    jit_compile=jit_compile,
    autograph=False,
  )
  found = run(*tensors, upstream)
  exact = [tf.cast(t, tf.float64) for t in (*tensors, upstream)]
  expected = penalty_gradients(attention(case, "reference"), exact[:-1], exact[-1])
  for one, other in zip(found, expected, strict=True):
    scale = np.abs(other).max()
    np.testing.assert_allclose(tf.cast(one, tf.float64) / scale, other / scale, atol=0.05)


@each
def test_upstream_gradient_that_is_the_query(implementation):
  """The second derivative with respect to both, as in tape.gradient(y, x, output_gradients=x)."""
  case, dtype = CASES["one_block"], most_precise_dtype(implementation)
  query, *rest, _ = inputs(case, dtype)

  def derivative(implementation, copy):
    with tf.GradientTape() as outer:
      outer.watch(query)
      with tf.GradientTape() as inner:
        inner.watch(query)
        output = attention(case, implementation)(query, *rest)
      gradient = inner.gradient(output, query, copy(query))
    return outer.gradient(gradient, query)

  expected = derivative("reference", tf.identity)
  assert_close([derivative(implementation, lambda x: x)], [expected], 10 * TOLERANCE[dtype])


def test_stem_with_one_tensor_as_two_arguments():
  query, table = tf.random.stateless_normal([1, 5, 8, 2, 4], [1, 2]), tf.ones([7, 2]) * 0.3
  upstream = tf.random.stateless_normal(query.shape, [1, 3])
  attend = ops.block_attention_2d
  found = vector_jacobian_product(attend, [query, query, query, table, table], [upstream])
  copies = [tf.identity(t) for t in (query, query, query, table, table)]
  for one, other in zip(found, gradients(attend, copies, upstream)[1:], strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("device", ["CPU", "TPU"])
def test_absorbed_stem_with_one_tensor_as_two_arguments(device):
  images = tf.random.stateless_normal([2, 5, 8, 3], [1, 2])
  kernel = tf.random.stateless_normal([3, 1, 4], [1, 3])
  values = tf.random.stateless_normal([16, 3, 1, 4], [1, 4])

  def total(copy):
    with tf.GradientTape() as tape:
      tape.watch(kernel)
      output = block_attention_2d_absorbed(images, kernel, copy(kernel), values)
      loss = tf.reduce_sum(output**2)
    return tape.gradient(loss, kernel)

  with use_target_device(device):
    found = [total(lambda x: x), tf.function(total, autograph=False)(lambda x: x)]
  for gradient in found:
    np.testing.assert_allclose(gradient, total(tf.identity), rtol=1e-4, atol=1e-4)


def test_distinct_copies_repetitions_only():
  one, other = tf.constant(1.0), tf.constant(2.0)
  first, second, third, missing, missing_too = distinct([one, one, other, None, None])
  assert first is one and third is other and second is not one
  assert missing is missing_too is None
  assert float(second) == 1.0


def directional_derivatives(case, implementation, tensors, directions):
  """Forward mode over the output, and over the gradient of its squared sum."""
  with tf.autodiff.ForwardAccumulator(tensors, directions) as accumulator:
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      output = attention(case, implementation)(*tensors)
      loss = tf.reduce_sum(output**2)
    gradient = tape.gradient(loss, tensors)
  return [accumulator.jvp(output), *[accumulator.jvp(g) for g in gradient]]


def reverse_over_reverse(case, tensors, directions):
  """The same by differentiating <gradient, direction>, and the output by finite differences."""
  step = 1e-6
  ends = [
    attention(case, "reference")(*[t + s * d for t, d in zip(tensors, directions, strict=True)])
    for s in (step, -step)
  ]
  with tf.GradientTape() as outer:
    outer.watch(tensors)
    with tf.GradientTape() as inner:
      inner.watch(tensors)
      loss = tf.reduce_sum(attention(case, "reference")(*tensors) ** 2)
    products = [
      tf.reduce_sum(g * d) for g, d in zip(inner.gradient(loss, tensors), directions, strict=True)
    ]
    total = tf.add_n(products)
  return [(ends[0] - ends[1]) / (2 * step), *outer.gradient(total, tensors)]


@pytest.mark.parametrize("mode", ["eager", "function inside"])
@each
def test_forward_over_reverse_mode(implementation, mode):
  case, dtype = CASES["one_block"], most_precise_dtype(implementation)
  *tensors, _ = inputs(case)
  *directions, _ = inputs(case, seed=1)
  expected = reverse_over_reverse(case, tensors, directions)
  compute = functools.partial(directional_derivatives, case, implementation)
  if mode == "function inside":
    compute = tf.function(compute, autograph=False)
  actual = compute([tf.cast(t, dtype) for t in tensors], [tf.cast(d, dtype) for d in directions])
  assert_close(actual, expected, 1e-4 if dtype == tf.float32 else 1e-8)


@pytest.mark.parametrize("implementation", ops.available_implementations()[1:])
def test_forward_mode_over_a_function_names_the_alternative(implementation):
  case = CASES["one_block"]
  query, *rest, _ = inputs(case, tf.float32)
  attend = tf.function(attention(case, implementation), autograph=False)
  with (
    tf.autodiff.ForwardAccumulator(query, query),
    pytest.raises(NotImplementedError, match=r"ForwardAccumulator inside of the tf\.function"),
  ):
    attend(query, *rest)


@pytest.mark.parametrize("name", CASES)
def test_blocked_is_vectorized_without_fallback(name):
  """Output and gradients of a batch of problems, as Jacobians need it."""
  case = CASES[name]
  tensors = inputs(case, tf.float32)
  stacks = [tf.stack([t, 0.5 * t, -t]) for t in tensors]

  def one(index):
    *arguments, upstream = [tf.gather(stack, index) for stack in stacks]
    return gradients(attention(case, "blocked"), arguments, upstream)

  found = tf.vectorized_map(one, tf.range(3), fallback_to_while_loop=False)
  expected = [tf.stack(results) for results in zip(*map(one, range(3)), strict=True)]
  assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("argument", range(5), ids=NAMES)
@each
def test_jacobian(implementation, argument):
  """One block in all: products of a stack with one matrix, which TensorFlow gets wrong."""
  case = Case((1, 3, 3, 1, 2), (3, 3))
  *tensors, _ = inputs(case, tf.float32)

  def jacobian(implementation, vectorized):
    with tf.GradientTape(persistent=True) as tape:
      tape.watch(tensors)
      output = attention(case, implementation)(*tensors)
    return tape.jacobian(output, tensors[argument], experimental_use_pfor=vectorized)

  assert_close([jacobian(implementation, True)], [jacobian("reference", False)], 1e-5)
