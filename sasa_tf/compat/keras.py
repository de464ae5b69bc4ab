"""Private APIs of Keras 3 and tf_keras: the layer calls of a functional model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Identifies a symbolic tensor within its model.
Key = int


@dataclasses.dataclass(frozen=True)
class Call:
  """One call of a layer or an operation.

  Attributes:
    layer: the layer or operation.
    inputs: its symbolic inputs; empty for an input layer.
    outputs: its symbolic outputs.
    dtypes: names of the dtypes of the inputs.
    apply: repeats the call on other tensors, in the order of `inputs`, with the same other
      arguments.
  """

  layer: Any
  inputs: tuple[Key, ...]
  outputs: tuple[Key, ...]
  dtypes: tuple[str, ...]
  apply: Callable[[Sequence[Any]], Any]


@dataclasses.dataclass(frozen=True)
class Graph:
  """The layer calls of a functional model.

  Attributes:
    inputs: its symbolic inputs.
    outputs: its symbolic outputs.
    calls: in an order of execution.
  """

  inputs: tuple[Key, ...]
  outputs: tuple[Key, ...]
  calls: tuple[Call, ...]


def graph_of(model: Any) -> Graph | None:
  """Returns the graph of a functional or built sequential model, and None for anything else."""
  model = getattr(model, "_functional", None) or model  # a Keras 3 Sequential wraps one
  nodes_by_depth = getattr(model, "_nodes_by_depth", None)
  if nodes_by_depth is None:
    return None
  calls = [
    _read_keras(node) if hasattr(node, "operation") else _read_tf_keras(node)
    for depth in sorted(nodes_by_depth, reverse=True)
    for node in nodes_by_depth[depth]
  ]
  return Graph(_keys(model.inputs), _keys(model.outputs), tuple(calls))


def _keys(tensors: Sequence[Any]) -> tuple[Key, ...]:
  return tuple(map(id, tensors))


def _dtypes(tensors: Sequence[Any]) -> tuple[str, ...]:
  return tuple(tf.as_dtype(tensor.dtype).name for tensor in tensors)


def _read_keras(node: Any) -> Call:
  """Returns the call of a node of Keras 3."""
  inputs = _keys(node.input_tensors)

  def apply(tensors):
    args, kwargs = node.arguments.fill_in(dict(zip(inputs, tensors, strict=True)))
    return node.operation(*args, **kwargs)

  return Call(node.operation, inputs, _keys(node.outputs), _dtypes(node.input_tensors), apply)


def _read_tf_keras(node: Any) -> Call:
  """Returns the call of a node of tf_keras."""

  def apply(tensors):
    # `map_arguments` removes the tensors from lists, one for each use.
    remaining = {}
    for key, tensor in zip(node.flat_input_ids, tensors, strict=True):
      remaining.setdefault(key, []).append(tensor)
    args, kwargs = node.map_arguments(remaining)
    return node.layer(*args, **kwargs)

  inputs, outputs = (tuple(map(int, keys)) for keys in (node.flat_input_ids, node.flat_output_ids))
  return Call(node.layer, inputs, outputs, _dtypes(node.keras_inputs), apply)
