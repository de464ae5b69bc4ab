"""Shapes of the outputs of a call, for inputs of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.analysis.cost.keras_graphs import Call
from sasa_tf.analysis.cost.layer_ops import Shape


def output_shapes(call: Call, name: str, inputs: Sequence[Shape], *, by_layer: bool) -> list[Shape]:
  """Returns the shape of each output.

  Args:
    call: of a layer or an operation.
    name: for messages.
    inputs: the shape of each input, all sizes known.
    by_layer: whether to trust the layer's own `compute_output_shape`, which is fast. Where it is
      missing, and of foreign layers, the call is traced.

  Raises:
    ValueError: the layer cannot take such inputs.
  """
  if not call.inputs:  # an input layer
    return list(inputs)
  try:
    shapes = (by_layer and _computed(call.layer, inputs)) or _traced(call, inputs)
  except Exception as error:  # of whatever the layer does
    raise ValueError(
      f"{name} ({type(call.layer).__name__}) cannot take inputs of shape "
      f"{[shape[1:] for shape in inputs]}: {error}. Give an input_shape that the model can take."
    ) from error
  if any(size is None for shape in shapes for size in shape):
    raise ValueError(
      f"{name} ({type(call.layer).__name__}) makes outputs whose size depends on more than that of "
      f"its inputs: {shapes} from {list(inputs)}. Count the model up to it, and from it on."
    )
  return shapes


def _computed(layer: Any, inputs: Sequence[Shape]) -> list[Shape] | None:
  """Asks the layer; None if it has no answer."""
  if not hasattr(layer, "compute_output_shape"):  # an operation
    return None
  try:
    return [tuple(layer.compute_output_shape(inputs[0] if len(inputs) == 1 else list(inputs)))]
  except NotImplementedError:
    return None


def _traced(call: Call, inputs: Sequence[Shape]) -> list[Shape]:
  """Builds the call as a graph of TensorFlow, which is not run."""

  def body(*tensors):
    return tf.nest.flatten(call.apply(tensors))

  specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(inputs, call.dtypes, strict=True)]
  outputs = tf.function(body).get_concrete_function(*specs).structured_outputs
  return [tuple(output.shape) for output in outputs]
