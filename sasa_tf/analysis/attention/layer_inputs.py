"""Runs a functional model and yields the input of each attention layer."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.analysis.model_parts import model_parts
from sasa_tf.compat.keras import Graph, graph_of
from sasa_tf.errors import UserError
from sasa_tf.layers import AttentionStemBase, LocalSelfAttention2DBase

_ATTENTION = (AttentionStemBase, LocalSelfAttention2DBase)


@dataclasses.dataclass(frozen=True)
class AttentionCall:
  """One call of an attention layer on real inputs.

  Attributes:
    name: of the layer; the calls of a shared layer after the first have the suffix ":2", ":3", ...
    part: index of the model's part: 0 for the backbone or the whole model.
    layer: `LocalSelfAttention2D` or `AttentionStem`.
    inputs: [B, H, W, C].
  """

  name: str
  part: int
  layer: Any
  inputs: tf.Tensor


def attention_names(model: Any) -> list[str]:
  """Returns the names of the model's calls of attention layers, in an order of execution.

  Raises:
    UserError: the model is not functional, or has no attention layer.
  """
  counts: Counter[str] = Counter()
  names = [
    _numbered(layer.name, counts)
    for graph in _graphs(model)
    for layer in _layers(graph)
    if isinstance(layer, _ATTENTION)
  ]
  if not names:
    raise UserError(
      f"the model {model.name!r} has no attention layer: expected LocalSelfAttention2D or "
      "AttentionStem of sasa_tf; received a model without them. Choose a model with attention, "
      "for example one with attention_groups=(1, 2, 3, 4)."
    )
  return names


def attention_calls(model: Any, images: tf.Tensor) -> Iterator[AttentionCall]:
  """Runs the model in inference mode, and yields its attention layers with their inputs.

  A feature map is released after its last use, so the memory is that of a forward pass.

  Args:
    model: functional model of Keras 3 or tf_keras, or a detector with backbone, decoder and head.
    images: [B, H, W, C], as the model takes them.
  """
  counts: Counter[str] = Counter()
  tensors = [images]
  for part, graph in enumerate(_graphs(model)):
    tensors = yield from _run(graph, tensors, part, counts)


def _run(graph: Graph, inputs: Sequence[Any], part: int, counts: Counter[str]):
  """Yields the attention calls of a graph, and returns its outputs."""
  if len(graph.inputs) != len(inputs):
    raise UserError(f"the model takes {len(graph.inputs)} inputs; expected one batch of images.")
  values = dict(zip(graph.inputs, inputs, strict=True))
  uses = Counter(key for call in graph.calls for key in call.inputs) + Counter(graph.outputs)
  for call in graph.calls:
    if not call.inputs:
      continue  # an input layer
    given = [values[key] for key in call.inputs]
    inner = graph_of(call.layer)
    if inner:
      outputs = yield from _run(inner, given, part, counts)
    else:
      if isinstance(call.layer, _ATTENTION):
        yield AttentionCall(_numbered(call.layer.name, counts), part, call.layer, given[0])
      outputs = tf.nest.flatten(call.apply(given))
    values.update(zip(call.outputs, outputs, strict=True))
    uses.subtract(call.inputs)
    for key in call.inputs:
      if not uses[key]:
        values.pop(key, None)
  return [values[key] for key in graph.outputs]


def _graphs(model: Any) -> list[Graph]:
  graphs = [graph_of(part) for part in model_parts(model)]
  if None in graphs:
    raise UserError(
      "attention maps need a functional or built sequential model of Keras 3 or tf_keras, or a "
      "detector with backbone, decoder and head; received "
      f"{type(model).__name__}. Wrap it as keras.Model(inputs, outputs)."
    )
  return [graph for graph in graphs if graph is not None]


def _layers(graph: Graph) -> Iterator[Any]:
  """Yields the layer of each call, also of nested models."""
  for call in graph.calls:
    inner = graph_of(call.layer)
    if inner:
      yield from _layers(inner)
    else:
      yield call.layer


def _numbered(name: str, counts: Counter[str]) -> str:
  counts[name] += 1
  return name if counts[name] == 1 else f"{name}:{counts[name]}"
