"""All-reduces within XLA programs: sums, gradients, order and failures."""

import time

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.collectives.all_reduce import ProgramAllReduce, reduce_within_program
from tests.collectives.replica_threads import needs_library, open_group, run_replicas

pytestmark = needs_library


def results(futures):
  return [future.result() for future in futures]


@pytest.mark.parametrize("jit_compile", [None, True], ids=["eager", "xla"])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_sums_over_all_replicas(replicas, jit_compile):
  inputs = [np.random.default_rng(r).normal(size=(5, 7)).astype("float32") for r in range(replicas)]

  def program(all_reduce, replica):
    return all_reduce([tf.constant(inputs[replica]), tf.constant(float(replica))])

  with open_group(replicas) as group:
    for matrix, scalar in results(run_replicas(group, program, jit_compile)):
      np.testing.assert_allclose(matrix, np.sum(inputs, axis=0), rtol=1e-6)
      assert scalar == sum(range(replicas))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sums_low_precision_in_float32(dtype):
  """512 + 1 + 1 would stay 512 if bfloat16 rounded after each addition."""
  values = [512.0, 2.0, 2.0]

  def program(all_reduce, replica):
    return all_reduce([tf.fill([3], tf.cast(values[replica], dtype))])[0]

  with open_group(3) as group:
    for total in results(run_replicas(group, program)):
      assert total.dtype == dtype
      np.testing.assert_array_equal(tf.cast(total, tf.float32), 3 * [516.0])


def test_inputs_stay_readable():
  """The custom call writes over its operands, of which XLA must make copies."""

  def program(all_reduce, replica):
    x = tf.range(4.0) + replica
    (total,) = all_reduce([x])
    return x, total

  with open_group(2) as group:
    for replica, (x, total) in enumerate(results(run_replicas(group, program))):
      np.testing.assert_array_equal(x, np.arange(4) + replica)
      np.testing.assert_array_equal(total, 2 * np.arange(4) + 1)


def test_many_all_reduces_run_in_the_order_of_the_program():
  """Independent ones of equal shape, which nothing but their order tells apart."""
  count = 20

  def program(all_reduce, replica):
    return [all_reduce([tf.fill([2], float((replica + 1) * i))])[0] for i in range(count)]

  with open_group(2) as group:
    for sums in results(run_replicas(group, program)):
      np.testing.assert_array_equal(sums, [[3 * i] * 2 for i in range(count)])


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_asynchronous_sums(replicas):
  """Each array is computed from the one before, and all sums are used together."""

  def program(all_reduce, replica):
    arrays = [tf.random.stateless_uniform([1000], [replica, 1])]
    for _ in range(4):
      arrays.append(tf.sin(arrays[-1]))
    (before,) = all_reduce([tf.constant(1.0)])
    sums = all_reduce.reduce_asynchronously(arrays)
    (after,) = all_reduce([tf.constant(2.0)])
    return arrays, sums, tf.add_n(sums), before + after

  with open_group(replicas) as group:
    found = results(run_replicas(group, program))
  expected = np.sum([arrays for arrays, *_ in found], axis=0)
  for _, sums, total, others in found:
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    np.testing.assert_allclose(total, expected.sum(axis=0), rtol=1e-5)
    assert others == 3 * replicas


def test_asynchronous_sums_of_several_calls_and_steps():
  def program(all_reduce, replica):
    first = all_reduce.reduce_asynchronously([tf.fill([3], 1.0 + replica), tf.fill([5], 2.0)])
    return first, all_reduce.reduce_asynchronously([tf.fill([2], 3.0), first[0]])

  with open_group(2) as group:
    for first, second in results(run_replicas(group, program, calls=3)):
      np.testing.assert_array_equal(first[0], 3 * [3])
      np.testing.assert_array_equal(first[1], 5 * [4])
      np.testing.assert_array_equal(second[0], 2 * [6])
      np.testing.assert_array_equal(second[1], 3 * [6])


def test_replica_that_does_not_start_an_asynchronous_sum_is_an_error():
  def program(all_reduce, replica):
    return all_reduce.reduce_asynchronously([tf.zeros([4])]) if replica else tf.zeros([])

  with open_group(2, timeout_seconds=1.0) as group:
    _, second = run_replicas(group, program)
    with pytest.raises(tf.errors.InternalError, match="these replicas did not reach it: 0"):
      second.result()


def test_gradients_of_first_and_second_order():
  """Each replica r has the loss (r + 1) s^3 of the sum s of all x."""

  def program(all_reduce, replica):
    x = tf.constant(replica + 1.0)
    with tf.GradientTape() as outer:
      outer.watch(x)
      with tf.GradientTape() as inner:
        inner.watch(x)
        (total,) = all_reduce([x])
        loss = (replica + 1) * total**3
      first = inner.gradient(loss, x)
    return first, outer.gradient(first, x)

  with open_group(2) as group:
    for first, second in results(run_replicas(group, program)):
      assert first == (1 + 2) * 3 * 3.0**2
      # The sum over both replicas of d/ds of that first gradient.
      assert second == 2 * (1 + 2) * 6 * 3.0


def test_replaces_the_all_reduce_of_the_replica_context():
  """As batch norm and the training step call it, within a strategy."""
  with open_group(1) as group, tf.distribute.OneDeviceStrategy("CPU:0").scope():

    @tf.function(jit_compile=True)
    def program():
      context = tf.distribute.get_replica_context()
      with reduce_within_program(group):
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, {"a": tf.constant(2.0)})
        mean = context.all_reduce("MEAN", tf.constant(3.0))
      calls = [op.type for op in tf.compat.v1.get_default_graph().get_operations()]
      assert calls.count("XlaCallModule") == 2
      return summed, mean

    summed, mean = tf.distribute.get_strategy().run(lambda: program())
    assert (summed["a"], mean) == (2, 3)


def test_different_arrays_are_an_error_on_all_replicas():
  def program(all_reduce, replica):
    all_reduce([tf.zeros([4])])
    return all_reduce([tf.zeros([4 + replica])])

  with open_group(2) as group:
    for future in run_replicas(group, program):
      with pytest.raises(tf.errors.InternalError, match="in all-reduce number 1, replica") as error:
        future.result()
      assert "replica 0 has float32[4]" in str(error.value)
      assert "replica 1 has float32[5]" in str(error.value)
    assert "same arrays in the same order" in group.failure()


def test_absent_replica_is_an_error_after_the_time_limit():
  def program(all_reduce, replica):
    if replica == 1:
      return tf.zeros([])
    return all_reduce([tf.zeros([4])])

  begin = time.monotonic()
  with open_group(3, timeout_seconds=1.0) as group:
    first, second, third = run_replicas(group, program)
    assert second.result() == 0
    for future in (first, third):
      with pytest.raises(tf.errors.InternalError, match="did not complete within 1 s") as error:
        future.result()
      assert "these replicas did not reach it: 1. " in str(error.value)
  assert time.monotonic() - begin < 30


def test_error_of_one_replica_ends_the_others():
  def program(all_reduce, replica):
    with all_reduce.group.aborted_on_error():
      if replica == 1:
        raise ValueError("out of memory")
      return all_reduce([tf.zeros([4])])

  with open_group(2) as group:
    first, second = run_replicas(group, program, jit_compile=None)
    with pytest.raises(ValueError, match="out of memory"):
      second.result()
    with pytest.raises(tf.errors.InternalError, match=r"the step failed \(ValueError\)"):
      first.result()


def test_failed_group_stays_failed():
  with open_group(1) as group:
    group.abort("first reason")
    group.abort("second reason")
    assert group.failure() == "first reason"
    (future,) = run_replicas(group, lambda all_reduce, _: all_reduce([tf.zeros([4])]))
    with pytest.raises(tf.errors.InternalError, match="first reason"):
      future.result()


def test_closed_group_is_an_error():
  with open_group(1) as group:
    pass
  (future,) = run_replicas(group, lambda all_reduce, _: all_reduce([tf.zeros([4])]))
  with pytest.raises(tf.errors.InternalError, match="has been closed"):
    future.result()


@pytest.mark.parametrize(
  "spec", [tf.TensorSpec([None, 2]), tf.TensorSpec([2], tf.int32)], ids=["shape", "dtype"]
)
def test_unsupported_tensors_raise(spec):
  with open_group(1) as group:

    @tf.function(input_signature=[spec])
    def program(x):
      return ProgramAllReduce(group, 0)([x])

    with pytest.raises(ValueError, match="static shapes, of float32, bfloat16 or float16"):
      program.get_concrete_function()


def test_branches_raise():
  with open_group(1) as group:

    @tf.function
    def program(x):
      all_reduce = ProgramAllReduce(group, 0)
      return tf.cond(x[0] > 0, lambda: all_reduce([x])[0], lambda: x)

    with pytest.raises(NotImplementedError, match="cannot be in a branch"):
      program(tf.ones([2]))
