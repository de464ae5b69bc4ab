"""The measuring loop really does every step, in order, with and without XLA."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.benchmarks.measurement.loop import CalledStep, RepeatedStep, idle_step
from sasa_tf.benchmarks.measurement.timing import round_robin, turns_for
from sasa_tf.benchmarks.workloads.workload import make_step, random_tensors

KINDS = pytest.mark.parametrize(
  ("jit", "compile_loop"), [(False, False), (True, False), (True, True)]
)


def convolution():
  inputs = random_tensors([[1, 5, 5, 4], [3, 3, 4, 4], [1, 5, 5, 4]], "float32", [1.0, 0.2, 1.0])
  function = lambda images, kernel: tf.nn.conv2d(images, kernel, 1, "SAME")  # noqa: E731
  return make_step(function, "forward_backward"), inputs


def one_after_the_other(step, inputs, steps):
  """What the loop promises to compute, in NumPy but for the step."""
  inputs, signal = [tensor.numpy().copy() for tensor in inputs], 0.0
  for _ in range(steps):
    for array in inputs:
      array.flat[0] = signal / 2
    results = step([tf.constant(array) for array in inputs])
    signal = np.tanh(np.mean([result.numpy().flat[0] for result in results]))
  return signal, results


@KINDS
def test_the_result_is_that_of_so_many_dependent_steps(jit, compile_loop):
  step, inputs = convolution()
  program = RepeatedStep(step, inputs, jit=jit, compile_loop=compile_loop)
  for turns in (1, 2, 5):
    signal, results = program.results(turns)
    expected, last = one_after_the_other(step, inputs, turns * program.steps_a_turn)
    np.testing.assert_allclose(signal, expected, rtol=1e-4, atol=1e-5)
    for result, array in zip(results, last, strict=True):
      np.testing.assert_allclose(result, array, rtol=1e-4, atol=1e-5)


@KINDS
def test_each_step_is_executed_once(jit, compile_loop):
  count = tf.Variable(0.0)

  def step(inputs):
    count.assign_add(1.0)
    return [inputs[0] * 2.0]

  program = RepeatedStep(step, [tf.ones([3])], jit=jit, compile_loop=compile_loop)
  count.assign(0.0)
  program.run(13)
  assert count.numpy() == 13 * program.steps_a_turn


def test_the_work_stays_inside_of_the_compiled_loop():
  """Nothing is hoisted, though each input but for an element is the same in all turns."""
  left, right = random_tensors([[32, 32], [32, 32]], "float32", [1.0, 1.0])
  step = lambda inputs: [tf.matmul(*inputs), tf.matmul(inputs[1], inputs[1])]  # noqa: E731
  repeated = RepeatedStep(step, [left, right], jit=True, compile_loop=True)
  ir = repeated._function.experimental_get_compiler_ir([left, right], tf.constant(1))
  program = ir(stage="optimized_hlo")
  computations = re.split(r"\n(?=\S.*\{\n)", program)
  (body,) = [text for text in computations if " dot(" in text]
  assert "while_body" in body.partition("(")[0] and body.count(" dot(") == 2
  assert " copy(" not in body  # the inputs are overwritten where they lie
  assert f'"known_trip_count":{{"n":"{repeated.steps_a_turn}"}}' in program


def test_the_inputs_handed_over_stay_as_they_are():
  inputs = [tf.ones([4])]
  RepeatedStep(lambda tensors: [tensors[0] + 1.0], inputs, jit=False, compile_loop=False).run(3)
  np.testing.assert_array_equal(inputs[0], np.ones(4))


@KINDS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_idle_step_runs_on_all_dtypes_and_ranks(jit, compile_loop, dtype):
  inputs = [tf.ones([2, 3, 1], dtype), tf.ones([4])]
  program = RepeatedStep(idle_step, inputs, jit=jit, compile_loop=compile_loop)
  assert -1.0 <= program.run(3) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_twice_the_work_takes_about_twice_as_long(jit):
  matrix = random_tensors([[384, 384]], "float32", [384**-0.5])

  def chain(length):
    def step(inputs):
      product = inputs[0]
      for _ in range(length):
        product = tf.matmul(product, inputs[0])
      return [product]

    program = RepeatedStep(step, matrix, jit=jit, compile_loop=False)
    program.run(1)
    return program

  programs = {length: chain(length) for length in (8, 16)}
  turns = turns_for(programs[8].run, 0.05)
  seconds = {8: [], 16: []}
  for length, elapsed in round_robin(
    {length: lambda p=program: p.run(turns) for length, program in programs.items()}, 15
  ):
    seconds[length].append(elapsed)
  assert 1.5 < np.median(seconds[16]) / np.median(seconds[8]) < 2.7


@pytest.mark.parametrize("jit", [False, True])
def test_called_steps_all_happen(jit):
  count = tf.Variable(0.0)

  def step(tensors):
    count.assign_add(1.0)
    return [tensors[0] * count]

  program = CalledStep(step, [tf.ones([3])], jit=jit)
  assert program.run(5) == pytest.approx(math.tanh(5.0))
  assert float(count) == 5.0
