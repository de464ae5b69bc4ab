"""Many steps inside one program, each of which needs the one before.

Called from Python, a step of a tenth of a millisecond is hidden behind the call. So a loop inside
of the program repeats it, and nothing may be computed once for all repetitions, left out, or run
beside another one. Hence one element of every input is overwritten, before each step, with a number
that depends on all results of the step before, and all results are carried whole from turn to turn:
no compiler can know what it will be, nor narrow a result down to the element that is read.

Where the loop is TensorFlow's, XLA compiles the step alone and sees one step. On a GPU the host
would need longer to start a small step than the GPU to finish it, so there the loop is inside of
the compiled program. On a CPU it is not, where XLA arranges convolutions only outside of loops for
its fast routines (a gradient of the kernel took 270 ms in a loop, 7 ms outside).

Steps of whole models are long and need none of this: they are called.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from sasa_tf.benchmarks.workloads.workload import Step

# Of a loop inside of a compiled program. XLA's loops on a GPU wait for the host in each turn unless
# their length is known to the compiler; so a loop of known length is inside that of unknown length.
_COMPILED_STEPS_A_TURN = 8


def _overwrite_first(tensor: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
  """Writes half of the number into the buffer itself where nobody else holds it."""
  # Half, as XLA makes a copy of what is not computed, and copies end the graph in which a GPU is
  # given the step's kernels at once: the loop took 25 us of a step instead of 13.
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
  """A number between -1 and 1 that depends on all results; NaN where one of them is."""
  firsts = [tf.cast(result[(0,) * result.shape.rank], tf.float32) for result in results]
  return tf.tanh(tf.add_n(firsts) / len(firsts))


def idle_step(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
  """The step that does nothing, to measure the loop itself."""
  return [_signal(inputs)]


class RepeatedStep:
  """A program that applies a step to its inputs again and again.

  Attributes:
    steps_a_turn: repetitions for each turn that is asked for.
  """

  def __init__(self, step: Step, inputs: Sequence[tf.Tensor], *, jit: bool, compile_loop: bool):
    """Traces the program; XLA compiles it when it is first called.

    Args:
      step: of a workload.
      inputs: that it starts from, of floating dtypes.
      jit: whether XLA compiles the step.
      compile_loop: whether it compiles the loop with it.
    """
    self._inputs = list(inputs)
    self.steps_a_turn = _COMPILED_STEPS_A_TURN if compile_loop else 1
    # Without autograph, which there is nothing to convert for, errors say what happened, no more.
    compiled = tf.function(step, jit_compile=jit, autograph=False)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    results = compiled.get_concrete_function(specs).structured_outputs

    def one_step(signal, inputs, results):
      del results  # only carried
      inputs = [_overwrite_first(tensor, signal) for tensor in inputs]
      results = compiled(inputs)
      return _signal(results), inputs, results

    def turn(*state):
      if self.steps_a_turn == 1:
        return one_step(*state)
      return _loop(self.steps_a_turn, one_step, state)

    def program(inputs, turns):
      blank = [tf.zeros(result.shape, result.dtype) for result in results]
      signal, _, last = _loop(turns, turn, (tf.zeros([]), inputs, blank))
      return signal, last

    self._function = tf.function(program, jit_compile=compile_loop, autograph=False)
    self._program = self._function.get_concrete_function(specs, tf.TensorSpec([], tf.int32))

  def results(self, turns: int) -> tuple[float, list[tf.Tensor]]:
    """Runs `turns * steps_a_turn` steps; returns the last signal, fetched, and the last results."""
    signal, results = self._program(self._inputs, tf.constant(turns))
    return float(signal), results

  def run(self, turns: int) -> float:
    """As `results`, and returns the signal alone; only then have all steps been done."""
    return self.results(turns)[0]


class CalledStep:
  """The same for steps of many milliseconds, which are called one after the other.

  A call does not wait for the result of the one before, so only the device's time counts. Inside of
  a loop of TensorFlow's a training step of 12.7 ms took 16.3 ms on a GPU.

  Attributes:
    steps_a_turn: 1.
  """

  steps_a_turn = 1

  def __init__(self, step: Step, inputs: Sequence[tf.Tensor], *, jit: bool):
    """As `RepeatedStep`; whatever one step needs of the one before is in its variables."""
    self._inputs = list(inputs)
    self._step = tf.function(step, jit_compile=jit, autograph=False)

  def run(self, turns: int) -> float:
    """Runs `turns` steps and waits for the last; returns a number that depends on its results."""
    for _ in range(turns):
      results = self._step(self._inputs)
    return float(_signal(results))


def _loop(length, body, state):
  return tf.while_loop(
    lambda turn, *_: turn < length,
    lambda turn, *state: (turn + 1, *body(*state)),
    (tf.constant(0), *state),
    parallel_iterations=1,
  )[1:]
