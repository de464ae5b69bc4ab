"""Output shapes of a layer call, for inputs of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.analysis.cost.layer_ops import Shape
from sasa_tf.compat.keras import Call


def output_shapes(
  call: Call, name: str, inputs: Sequence[Shape], *, use_compute_output_shape: bool
) -> list[Shape]:
  """Returns the shape of each output.

  Args:
    call: call of a layer or an operation.
    name: of the layer, for error messages.
    inputs: the shape of each input; all sizes are known.
    use_compute_output_shape: whether to use the layer's `compute_output_shape`, which is fast.
      Otherwise, or if the layer has none, the call is traced.

  Raises:
    ValueError: the layer does not support these input shapes, or its output shape is unknown.
  """
  if not call.inputs:  # an input layer
    return list(inputs)
  try:
    shapes = (use_compute_output_shape and _computed(call.layer, inputs)) or _traced(call, inputs)
  except Exception as error:  # any error that the layer raises
    raise ValueError(
      f"{name} ({type(call.layer).__name__}) does not support inputs of shape "
      f"{[shape[1:] for shape in inputs]}: {error}. Pass an input_shape that the model supports."
    ) from error
  if any(size is None for shape in shapes for size in shape):
    raise ValueError(
      f"{name} ({type(call.layer).__name__}) has outputs whose size depends on the values of its "
      f"inputs: {shapes} from {list(inputs)}. Split the model at this layer and count both parts."
    )
  return shapes


def _computed(layer: Any, inputs: Sequence[Shape]) -> list[Shape] | None:
  """Returns the result of `compute_output_shape`, or None if the layer does not implement it."""
  if not hasattr(layer, "compute_output_shape"):  # not a layer but an operation
    return None
  try:
    return [tuple(layer.compute_output_shape(inputs[0] if len(inputs) == 1 else list(inputs)))]
  except NotImplementedError:
    return None


def _traced(call: Call, inputs: Sequence[Shape]) -> list[Shape]:
  """Traces the call as a TensorFlow graph, which is not executed."""

  def body(*tensors):
    return tf.nest.flatten(call.apply(tensors))

  specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(inputs, call.dtypes, strict=True)]
  outputs = tf.function(body).get_concrete_function(*specs).structured_outputs
  return [tuple(output.shape) for output in outputs]
