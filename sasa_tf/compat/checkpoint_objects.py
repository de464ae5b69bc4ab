"""Compares the variables of a model with those of a checkpoint, by TensorFlow's object graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_MAX_SHOWN = 3


class Mismatch(NamedTuple):
  """A variable that a checkpoint cannot initialize.

  Attributes:
    item: name of the item of the checkpoint that has the variable, such as "model".
    variable: the variable.
    saved_shape: its shape in the checkpoint, or None if it is missing there.
  """

  item: str
  variable: tf.Variable
  saved_shape: tuple[int, ...] | None

  def __str__(self) -> str:
    shape = list(self.variable.shape)
    if self.saved_shape is None:
      return f"{self.variable.name} {shape} is not in the checkpoint"
    return f"{self.variable.name} has {list(self.saved_shape)} in the checkpoint, {shape} here"


def mismatches(checkpoint: str, items: Mapping[str, Any]) -> list[Mismatch]:
  """Returns the variables that the checkpoint does not hold, or holds with another shape.

  Args:
    checkpoint: path without suffix, in the format of `tf.train.Checkpoint`.
    items: {name in the checkpoint: object}, as given to `tf.train.Checkpoint`.

  Raises:
    tf.errors.OpError: the checkpoint cannot be read.
    ValueError: it is not in this format.
  """
  graph, shapes = _read(checkpoint)
  found: list[Mismatch] = []
  for name, item in items.items():
    root = _children(graph.nodes[0]).get(name)
    found += [
      Mismatch(name, variable, shape)
      for variable, shape in _compare(item, root, graph, shapes, visited=set())
    ]
  return found


def item_names(checkpoint: str) -> set[str]:
  """Returns the names of the items of a checkpoint, such as "model".

  Args:
    checkpoint: path without suffix, in the format of `tf.train.Checkpoint`.

  Raises:
    tf.errors.OpError: the checkpoint cannot be read.
    ValueError: it is not in this format.
  """
  graph, _ = _read(checkpoint)
  return set(_children(graph.nodes[0]))


def describe(found: Sequence[Mismatch]) -> str:
  """Returns the first mismatches, and the number of further ones."""
  shown = "; ".join(map(str, found[:_MAX_SHOWN]))
  more = len(found) - _MAX_SHOWN
  return f"{shown}; and {more} more" if more > 0 else shown


def _compare(
  trackable: Any,
  node: int | None,
  graph: trackable_object_graph_pb2.TrackableObjectGraph,
  shapes: Mapping[str, list[int]],
  visited: set[int],
) -> Iterator[tuple[tf.Variable, tuple[int, ...] | None]]:
  """Yields (variable, shape in the checkpoint) of those that differ, below an object."""
  if id(trackable) in visited:
    return
  visited.add(id(trackable))
  if isinstance(trackable, tf.Variable):
    attributes = graph.nodes[node].attributes if node is not None else ()
    keys = {attribute.name: attribute.checkpoint_key for attribute in attributes}
    saved = shapes.get(keys.get(_VALUE, ""))
    if saved is None or list(saved) != trackable.shape.as_list():
      yield trackable, None if saved is None else tuple(saved)
    return
  known = _children(graph.nodes[node]) if node is not None else {}
  for name, child in tf.train.TrackableView(trackable).children(trackable).items():
    yield from _compare(child, known.get(name), graph, shapes, visited)


def _read(
  checkpoint: str,
) -> tuple[trackable_object_graph_pb2.TrackableObjectGraph, Mapping[str, list[int]]]:
  """Returns the objects of a checkpoint, and the shapes of its tensors."""
  reader = tf.train.load_checkpoint(checkpoint)
  shapes = reader.get_variable_to_shape_map()
  if _GRAPH not in shapes:
    raise ValueError("it is not an object-based checkpoint of TensorFlow 2")
  graph = trackable_object_graph_pb2.TrackableObjectGraph()
  graph.ParseFromString(reader.get_tensor(_GRAPH))
  return graph, shapes


def _children(
  node: trackable_object_graph_pb2.TrackableObjectGraph.TrackableObject,
) -> dict[str, int]:
  return {child.local_name: child.node_id for child in node.children}
