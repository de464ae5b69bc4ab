"""The benchmark loop executes every step, in order, with and without XLA."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.benchmarks.measurement.loop import CalledStep, RepeatedStep, idle_step
from sasa_tf.benchmarks.workloads.workload import make_step, random_tensors

MODES = pytest.mark.parametrize(
  ("jit", "compile_loop"), [(False, False), (True, False), (True, True)]
)


def convolution():
  inputs = random_tensors([[1, 5, 5, 4], [3, 3, 4, 4], [1, 5, 5, 4]], "float32", [1.0, 0.2, 1.0])
  function = lambda images, kernel: tf.nn.conv2d(images, kernel, 1, "SAME")  # noqa: E731
  return make_step(function, "forward_backward"), inputs


def run_sequentially(step, inputs, steps):
  """Returns what the loop computes, in NumPy except for the step."""
  inputs, signal = [tensor.numpy().copy() for tensor in inputs], 0.0
  for _ in range(steps):
    for array in inputs:
      array.flat[0] = signal / 2
    results = step([tf.constant(array) for array in inputs])
    signal = np.tanh(np.mean([result.numpy().flat[0] for result in results]))
  return signal, results


@MODES
def test_result_is_that_of_dependent_steps(jit, compile_loop):
  step, inputs = convolution()
  program = RepeatedStep(step, inputs, jit=jit, compile_loop=compile_loop)
  for iterations in (1, 2, 5):
    signal, results = program.results(iterations)
    expected, last = run_sequentially(step, inputs, iterations * program.steps_per_iteration)
    np.testing.assert_allclose(signal, expected, rtol=1e-4, atol=1e-5)
    for result, array in zip(results, last, strict=True):
      np.testing.assert_allclose(result, array, rtol=1e-4, atol=1e-5)


@MODES
def test_each_step_is_executed_once(jit, compile_loop):
  count = tf.Variable(0.0)

  def step(inputs):
    count.assign_add(1.0)
    return [inputs[0] * 2.0]

  program = RepeatedStep(step, [tf.ones([3])], jit=jit, compile_loop=compile_loop)
  count.assign(0.0)
  program.run(13)
  assert count.numpy() == 13 * program.steps_per_iteration


def test_compiler_does_not_hoist_work_out_of_the_loop():
  """All but one element of each input is the same in all iterations."""
  left, right = random_tensors([[32, 32], [32, 32]], "float32", [1.0, 1.0])
  step = lambda inputs: [tf.matmul(*inputs), tf.matmul(inputs[1], inputs[1])]  # noqa: E731
  repeated = RepeatedStep(step, [left, right], jit=True, compile_loop=True)
  ir = repeated._function.experimental_get_compiler_ir([left, right], tf.constant(1))
  program = ir(stage="optimized_hlo")
  computations = re.split(r"\n(?=\S.*\{\n)", program)
  (body,) = [text for text in computations if " dot(" in text]
  assert "while_body" in body.partition("(")[0] and body.count(" dot(") == 2
  assert " copy(" not in body  # the inputs are overwritten in place
  assert f'"known_trip_count":{{"n":"{repeated.steps_per_iteration}"}}' in program


def test_inputs_of_the_caller_are_not_modified():
  inputs = [tf.ones([4])]
  RepeatedStep(lambda tensors: [tensors[0] + 1.0], inputs, jit=False, compile_loop=False).run(3)
  np.testing.assert_array_equal(inputs[0], np.ones(4))


@MODES
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_idle_step_runs_on_all_dtypes_and_ranks(jit, compile_loop, dtype):
  inputs = [tf.ones([2, 3, 1], dtype), tf.ones([4])]
  program = RepeatedStep(idle_step, inputs, jit=jit, compile_loop=compile_loop)
  assert -1.0 <= program.run(3) <= 1.0


@pytest.mark.parametrize("jit", [False, True])
def test_program_has_all_operations_of_the_step(jit):
  matrix = random_tensors([[8, 8]], "float32", [1.0])

  def count(length):
    def step(inputs):
      product = inputs[0]
      for _ in range(length):
        product = tf.matmul(product, inputs[0])
      return [product]

    program = RepeatedStep(step, matrix, jit=jit, compile_loop=False)
    functions = program._program.graph.as_graph_def().library.function
    # The step is one function, which the loop calls; each function is traced once.
    return sum(node.op == "MatMul" for function in functions for node in function.node_def)

  assert (count(8), count(16)) == (8, 16)


@pytest.mark.parametrize("jit", [False, True])
def test_all_called_steps_are_executed(jit):
  count = tf.Variable(0.0)

  def step(tensors):
    count.assign_add(1.0)
    return [tensors[0] * count]

  program = CalledStep(step, [tf.ones([3])], jit=jit)
  assert program.run(5) == pytest.approx(math.tanh(5.0))
  assert float(count) == 5.0
