"""Programs that repeat a step many times, with a data dependency between consecutive steps.

The overhead of calling a program from Python exceeds the time of a step of 0.1 ms, so a loop inside
the program repeats the step. The compiler must not hoist, eliminate or overlap steps. Therefore one
element of every input is overwritten before each step with a value that depends on all results of
the previous step, and all results are loop variables: the compiler can neither predict the value
nor reduce a result to the element that is read.

If the loop is TensorFlow's, XLA compiles the step alone. On a GPU, launching a small step from the
host would take longer than the step, so there the loop is inside the compiled program. On a CPU it
is not, because XLA uses its fast convolution routines only outside of loops (a kernel gradient took
270 ms inside a loop and 7 ms outside).

Steps of models take long enough to be called from Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from sasa_tf.benchmarks.workloads.workload import Step

# XLA's loops on a GPU synchronize with the host in each iteration unless the compiler knows the
# trip count. So the loop in a compiled program has an inner loop with this trip count.
_COMPILED_STEPS_PER_ITERATION = 8


def _overwrite_first(tensor: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
  """Writes half of the number to the first element, in place where no one else uses the buffer."""
  # XLA copies a value that is not computed, and a copy ends the CUDA graph that launches the
  # kernels of the step together: without the division, the loop took 25 us per step, not 13.
  number = number / 2
  rank = tensor.shape.rank
  return tf.raw_ops.TensorStridedSliceUpdate(
    input=tensor,
    begin=[0] * rank,
    end=[1] * rank,
    strides=[1] * rank,
    value=tf.reshape(tf.cast(number, tensor.dtype), [1] * rank),
  )


def _signal(results: Sequence[tf.Tensor]) -> tf.Tensor:
  """Returns a number between -1 and 1 that depends on all results; NaN if one of them is NaN."""
  firsts = [tf.cast(result[(0,) * result.shape.rank], tf.float32) for result in results]
  return tf.tanh(tf.add_n(firsts) / len(firsts))


def idle_step(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
  """A step without work, to measure the overhead of the loop."""
  return [_signal(inputs)]


class RepeatedStep:
  """A program that applies a step to its inputs repeatedly.

  Attributes:
    steps_per_iteration: number of steps in one iteration.
  """

  def __init__(self, step: Step, inputs: Sequence[tf.Tensor], *, jit: bool, compile_loop: bool):
    """Traces the program. XLA compiles it in the first call.

    Args:
      step: of a workload.
      inputs: initial inputs, of floating dtypes.
      jit: whether XLA compiles the step.
      compile_loop: whether XLA compiles the loop with the step.
    """
    self._inputs = list(inputs)
    self.steps_per_iteration = _COMPILED_STEPS_PER_ITERATION if compile_loop else 1
    # Without autograph, which has nothing to convert here, error messages are shorter.
    compiled = tf.function(step, jit_compile=jit, autograph=False)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    results = compiled.get_concrete_function(specs).structured_outputs

    def one_step(signal, inputs, results):
      del results  # only a loop variable
      inputs = [_overwrite_first(tensor, signal) for tensor in inputs]
      results = compiled(inputs)
      return _signal(results), inputs, results

    def iteration(*state):
      if self.steps_per_iteration == 1:
        return one_step(*state)
      return _loop(self.steps_per_iteration, one_step, state)

    def program(inputs, iterations):
      blank = [tf.zeros(result.shape, result.dtype) for result in results]
      signal, _, last = _loop(iterations, iteration, (tf.zeros([]), inputs, blank))
      return signal, last

    self._function = tf.function(program, jit_compile=compile_loop, autograph=False)
    self._program = self._function.get_concrete_function(specs, tf.TensorSpec([], tf.int32))

  def results(self, iterations: int) -> tuple[float, list[tf.Tensor]]:
    """Runs `iterations * steps_per_iteration` steps.

    Returns:
      The value that depends on all results, fetched to the host, and the results of the last step.
    """
    signal, results = self._program(self._inputs, tf.constant(iterations))
    return float(signal), results

  def run(self, iterations: int) -> float:
    """As `results`, but returns the value alone. It waits for all steps."""
    return self.results(iterations)[0]


class CalledStep:
  """As `RepeatedStep`, for steps of many milliseconds, which are called from Python.

  A call does not wait for the previous one, so only the time of the device counts. In a loop of
  TensorFlow's, a training step of 12.7 ms took 16.3 ms on a GPU.

  Attributes:
    steps_per_iteration: 1.
  """

  steps_per_iteration = 1

  def __init__(self, step: Step, inputs: Sequence[tf.Tensor], *, jit: bool):
    """As `RepeatedStep`; steps depend on each other through the variables of the step."""
    self._inputs = list(inputs)
    self._step = tf.function(step, jit_compile=jit, autograph=False)

  def run(self, iterations: int) -> float:
    """Runs the steps and waits for the last; returns a number that depends on its results."""
    for _ in range(iterations):
      results = self._step(self._inputs)
    return float(_signal(results))


def _loop(length, body, state):
  return tf.while_loop(
    lambda iteration, *_: iteration < length,
    lambda iteration, *state: (iteration + 1, *body(*state)),
    (tf.constant(0), *state),
    parallel_iterations=1,
  )[1:]
