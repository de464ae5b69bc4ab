"""What a contestant computes in one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

Step = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class Workload(NamedTuple):
  """A step and what it starts from.

  Attributes:
    step: takes `inputs` or tensors like them and returns all that it computed.
    inputs: of floating dtypes.
    variables: that the step reads or updates, optimizer slots among them.
    parameters: trainable ones, or None where that is no question.
    required_bytes: that any implementation must read and write, or None.
  """

  step: Step
  inputs: list[tf.Tensor]
  variables: Sequence[tf.Variable] = ()
  parameters: int | None = None
  required_bytes: int | None = None

  @property
  def held_bytes(self) -> int:
    """Of inputs and variables, which exist before the step and after."""
    return sum(map(tensor_bytes, [*self.inputs, *self.variables]))


def tensor_bytes(tensor: tf.Tensor | tf.Variable) -> int:
  """Returns the size of a tensor of known shape."""
  return math.prod(tensor.shape) * tensor.dtype.size


def random_tensors(
  shapes: Sequence[Sequence[int]], dtype: str, deviations: Sequence[float]
) -> list[tf.Tensor]:
  """Returns normal random tensors, the same in every run."""
  return [
    tf.cast(tf.random.stateless_normal(shape, [0, number], stddev=deviation), dtype)
    for number, (shape, deviation) in enumerate(zip(shapes, deviations, strict=True))
  ]


def make_step(function: Callable[..., tf.Tensor], mode: str) -> Step:
  """Returns the step that applies a function, with the gradients of its arguments if asked.

  Args:
    function: of tensors, returns one.
    mode: of `cases.MODES`.

  Returns:
    A step on the function's arguments; with "forward_backward" they are followed by the gradient
    of the output, so that no loss adds to the time, and the step returns output and gradients.
  """
  if mode == "forward":
    return lambda inputs: [function(*inputs)]

  def step(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    *arguments, upstream = inputs
    with tf.GradientTape() as tape:
      tape.watch(arguments)
      output = function(*arguments)
    return [output, *tape.gradient(output, arguments, upstream)]

  return step
