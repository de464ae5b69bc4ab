"""The computation of a candidate in one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

Step = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class Workload(NamedTuple):
  """A step and its inputs.

  Attributes:
    step: takes `inputs`, or tensors of the same shapes and dtypes, and returns all its results.
    inputs: tensors of floating dtypes.
    variables: variables that the step reads or updates, including optimizer slots.
    parameters: number of trainable parameters; None for an operation.
    required_bytes: bytes that any implementation must read and write; None if unknown.
  """

  step: Step
  inputs: list[tf.Tensor]
  variables: Sequence[tf.Variable] = ()
  parameters: int | None = None
  required_bytes: int | None = None

  @property
  def resident_bytes(self) -> int:
    """Bytes of inputs and variables, which stay allocated between steps."""
    return sum(map(tensor_bytes, [*self.inputs, *self.variables]))


def policy_name(dtype: str) -> str:
  """Returns the Keras dtype policy that computes in `dtype` with float32 variables."""
  return dtype if dtype == "float32" else f"mixed_{dtype}"


def tensor_bytes(tensor: tf.Tensor | tf.Variable) -> int:
  """Returns the size of a tensor with a static shape."""
  return math.prod(tensor.shape) * tensor.dtype.size


def random_tensors(
  shapes: Sequence[Sequence[int]], dtype: str, deviations: Sequence[float]
) -> list[tf.Tensor]:
  """Returns normal random tensors, equal in every run."""
  return [
    tf.cast(tf.random.stateless_normal(shape, [0, number], stddev=deviation), dtype)
    for number, (shape, deviation) in enumerate(zip(shapes, deviations, strict=True))
  ]


def make_step(function: Callable[..., tf.Tensor], mode: str) -> Step:
  """Returns a step that applies a function, and in backward mode computes its gradients.

  Args:
    function: takes tensors and returns one.
    mode: one of `cases.MODES`.

  Returns:
    A step on the function's arguments. With "forward_backward" its last input is the gradient of
    the output, so that no loss adds to the time, and it returns the output and the gradients of
    the arguments.
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
