"""Derivatives of functions of TensorFlow operations, for the custom gradients of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

# TensorFlow builds the gradient of the function while tapes record nothing.
_FORWARD_MODE = (
  "TensorFlow cannot differentiate a tf.function with attention in forward mode: the "
  "ForwardAccumulator is outside of the function, and the gradients of attention need a "
  "GradientTape. Enter the tf.autodiff.ForwardAccumulator inside of the tf.function, or call the "
  "function eagerly."
)


def distinct(tensors: Iterable[tf.Tensor | None]) -> list[Any]:
  """Returns the tensors, each repetition of the same tensor replaced by a copy of its own.

  A GradientTape identifies a source by the tensor, not by the argument. If one tensor is passed as
  two arguments, it would return the sum of both gradients for each of them.
  """
  seen: set[int] = set()
  result = []
  for tensor in tensors:
    repeated = tensor is not None and id(tensor) in seen
    result.append(tf.identity(tensor) if repeated else tensor)
    seen.add(id(tensor))
  return result


def recorded(
  function: Callable[..., Any], arguments: Iterable[tf.Tensor | None]
) -> tuple[Any, Callable[[Any, Any], list[Any]]]:
  """Computes `function(*arguments)` such that its results can be differentiated once.

  Args:
    function: takes the arguments.
    arguments: tensors, or None.

  Returns:
    The results, and a function that takes some of them and their upstream gradients and returns the
    gradient of each argument that is not None, also if two are the same tensor. That raises a
    NotImplementedError if TensorFlow records nothing.
  """
  sources = distinct(arguments)
  present = [x for x in sources if x is not None]
  with tf.GradientTape() as tape:
    tape.watch(present)
    results = function(*sources)

  def gradient(targets: Any, upstream: Any) -> list[Any]:
    gradients = tape.gradient(targets, present, upstream)
    if all(g is None for g in gradients):
      raise NotImplementedError(_FORWARD_MODE)
    return gradients

  return results, gradient


def vector_jacobian_product(
  function: Callable[..., Any], arguments: Iterable[tf.Tensor], upstream: Sequence[tf.Tensor]
) -> list[Any]:
  """Returns the gradient with respect to each argument, also if two are the same tensor.

  Args:
    function: takes the arguments; returns a tensor, or a list of them.
    arguments: tensors.
    upstream: gradients of what the function returns.
  """
  results, gradient = recorded(function, arguments)
  return gradient(tf.nest.flatten(results), upstream)
