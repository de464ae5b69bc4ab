"""The cost of a model: walks the layer calls, infers shapes and applies the layer rules."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.analysis.cost.conventions import Convention, find_convention
from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape, elements
from sasa_tf.analysis.cost.model_cost import LayerCost, ModelCost
from sasa_tf.analysis.cost.registry import find_rule
from sasa_tf.analysis.cost.shapes import output_shapes
from sasa_tf.analysis.model_parts import model_parts
from sasa_tf.compat.keras import Call, Graph, graph_of

# The paper's image size, for models without a fixed one.
DEFAULT_SIZE = 224


def cost_model(
  model: Any,
  input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
  convention: str | Convention = "paper",
  *,
  batch_size: int = 1,
  dtype: str = "float32",
) -> ModelCost:
  """Counts parameters, FLOPs and bytes of a forward pass in closed form, without executing it.

  The counts depend on the arguments of the layers and on the input size, not on the implementation
  of attention. Redundant operations of an implementation are not counted.

  Examples:
    >>> cost = cost_model(sasa_tf.keras.SASAResNet(50), (224, 224, 3), "mac")
    >>> f"{cost.flops / 1e9:.3f} G, {cost.parameters:,}"
    '6.969 G, 15,966,504'

  Args:
    model: a functional or built sequential model of Keras 3 or tf_keras, possibly with nested
      models: `SASAResNet`, Model Garden's `ClassificationModel`, or any model that uses the layers
      of this library. Alternatively a detector with `backbone`, `decoder` and `head`, such as Model
      Garden's `RetinaNetModel`, which is counted up to the class logits and boxes of all anchors.
    input_shape: (H, W, C), or whatever follows the batch dimension; a sequence of such shapes for a
      model with several inputs. The default is the model's own shape, with 224 for unknown sizes.
      The model may have been built for another size.
    convention: what counts as a FLOP, "paper" (fitted to the rows of the paper's tables) or "mac"
      (2 per multiply-add); see `CONVENTIONS`.
    batch_size: B, for the bytes. Parameters and FLOPs do not depend on it.
    dtype: of activations and weights in memory, for example "bfloat16".

  Returns:
    The cost. Layers without a rule are listed in its `unknown`; its FLOPs and bytes do not include
    them.

  Raises:
    TypeError: the argument is not a functional or built sequential model.
    ValueError: the model does not support the shape, or the convention or dtype is unknown.
  """
  parts = model_parts(model)
  graphs = list(map(_require_graph, parts))
  if not isinstance(batch_size, int) or batch_size < 1:
    raise ValueError(f"batch_size must be a positive int; received {batch_size!r}.")
  shapes = _input_shapes(parts[0], input_shape)
  walker = _Walker(find_convention(convention), batch_size, _size_of(dtype))
  maps = [(1, *shape) for shape in shapes]
  for part, graph in zip(parts, graphs, strict=True):
    maps = walker.walk(graph, maps, f"{part.name}/" if len(parts) > 1 else "")
  return ModelCost(
    model=model.name,
    input_shapes=shapes,
    convention=walker.convention,
    batch_size=batch_size,
    dtype=tf.as_dtype(dtype).name,
    layers=tuple(walker.layers),
  )


def _require_graph(model: Any) -> Graph:
  graph = graph_of(model)
  if graph is None:
    raise TypeError(
      "cost_model requires a functional or a built sequential model; received "
      f"{type(model).__name__}. Wrap it as keras.Model(inputs, layer(inputs)) with inputs = "
      "keras.Input((224, 224, 3))."
    )
  return graph


def _size_of(dtype: str) -> int:
  try:
    found = tf.as_dtype(dtype)
    if not (found.is_floating or found.is_integer):
      raise TypeError(f"{dtype} has no fixed size")
    return found.size
  except TypeError as error:
    raise ValueError(
      f"dtype must be the name of a dtype, for example 'float32' or 'bfloat16'; received {dtype!r}."
    ) from error


def _input_shapes(model: Any, input_shape: Any) -> tuple[Shape, ...]:
  """Returns the shape of each input without the batch dimension; all sizes are known."""
  own = [tuple(tensor.shape)[1:] for tensor in model.inputs]
  if input_shape is None:
    return tuple(tuple(DEFAULT_SIZE if n is None else n for n in shape) for shape in own)
  several = all(isinstance(shape, (tuple, list)) for shape in input_shape)
  shapes = tuple(map(tuple, input_shape if several else [input_shape]))
  if len(shapes) != len(own) or not all(map(_fits, shapes, own)):
    expected = " and ".join(str(shape) for shape in own)
    raise ValueError(
      "input_shape must be (H, W, C), positive ints without the batch dimension, one such shape "
      f"for each input; {model.name} was built for {expected}, of which H and W may differ; "
      f"received {input_shape!r}."
    )
  return shapes


def _fits(shape: Shape, own: tuple[int | None, ...]) -> bool:
  """Returns whether an input of shape `own` can take `shape`: any H and W, the same C."""
  sizes = len(shape) == len(own) and all(isinstance(n, int) and n > 0 for n in shape)
  return sizes and own[-1] in (None, shape[-1])


class _Walker:
  """Propagates shapes through a model and collects the cost of its layer calls.

  Attributes:
    convention: for counting FLOPs.
    layers: costs of the calls so far.
  """

  def __init__(self, convention: Convention, batch_size: int, dtype_size: int):
    self.convention = convention
    self.layers: list[LayerCost] = []
    self._batch_size = batch_size
    self._dtype_size = dtype_size
    self._calls: Counter[int] = Counter()  # id of a layer -> number of its calls

  def walk(self, graph: Graph, inputs: Sequence[Shape], path: str = "") -> list[Shape]:
    """Walks the calls of a graph and of nested models; returns its output shapes."""
    shapes = dict(zip(graph.inputs, inputs, strict=True))
    for call in graph.calls:
      name = f"{path}{call.layer.name}"
      # The output of an input layer is an input of the graph.
      given = [shapes[key] for key in call.inputs or call.outputs]
      inner = graph_of(call.layer)
      outputs = self.walk(inner, given, f"{name}/") if inner else self._visit(call, name, given)
      shapes.update(zip(call.outputs, outputs, strict=True))
    return [shapes[key] for key in graph.outputs]

  def _visit(self, call: Call, name: str, inputs: list[Shape]) -> list[Shape]:
    layer = call.layer
    rule = find_rule(layer)
    outputs = output_shapes(call, name, inputs, use_compute_output_shape=rule is not None)
    layer_ops = rule(layer, inputs, outputs) if rule else None
    if layer_ops:
      _check_weights(layer, layer_ops, name, inputs)
    self._calls[id(layer)] += 1
    count = self._calls[id(layer)]
    parameters, non_trainable = _weights(layer, layer_ops) if count == 1 else (0, 0)
    cost = LayerCost(
      name=f"{name}:{count}" if count > 1 else name,
      type=type(layer).__name__,
      output_shape=outputs[0][1:],
      parameters=parameters,
      non_trainable_parameters=non_trainable,
    )
    self.layers.append(self._with_ops(cost, layer_ops, inputs, outputs) if layer_ops else cost)
    return outputs

  def _with_ops(
    self, cost: LayerCost, layer_ops: LayerOps, inputs: list[Shape], outputs: list[Shape]
  ) -> LayerCost:
    moved = elements(inputs) + elements(outputs) if layer_ops.moves_data else 0
    return dataclasses.replace(
      cost,
      op_counts=dict(layer_ops.op_counts),
      flops=self.convention.flops(layer_ops.op_counts),
      activation_bytes=moved * self._batch_size * self._dtype_size,
      weight_bytes=(layer_ops.parameters + layer_ops.non_trainable_parameters) * self._dtype_size,
    )


def _weights(layer: Any, layer_ops: LayerOps | None) -> tuple[int, int]:
  """Returns the trainable and other parameters, by the rule or else by the layer's weights."""
  if layer_ops:
    return layer_ops.parameters, layer_ops.non_trainable_parameters
  return (
    _count(getattr(layer, "trainable_weights", ())),
    _count(getattr(layer, "non_trainable_weights", ())),
  )


def _count(weights: Sequence[Any]) -> int:
  return sum(math.prod(weight.shape) for weight in weights)


def _check_weights(layer: Any, layer_ops: LayerOps, name: str, inputs: Sequence[Shape]) -> None:
  """Checks the closed form against the weights of the layer.

  They differ if the layer does not support these inputs (a classifier after `Flatten`), or if it
  was modified after construction (quantized, adapted).
  """
  found = _count(getattr(layer, "weights", ()))
  expected = layer_ops.parameters + layer_ops.non_trainable_parameters
  if found != expected:
    raise ValueError(
      f"{name} has {found:,} weights, but on inputs of shape {[shape[1:] for shape in inputs]} "
      f"{type(layer).__name__} would have {expected:,}. It was built for inputs of another size "
      "or modified later: pass the input_shape that the model was built for."
    )
