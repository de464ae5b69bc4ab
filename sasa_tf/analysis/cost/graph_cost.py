"""From a model to what it costs: walks its calls, works out shapes, asks the rules."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.analysis.cost.conventions import Convention, find_convention
from sasa_tf.analysis.cost.keras_graphs import Call, Graph, graph_of
from sasa_tf.analysis.cost.layer_ops import Facts, Shape, elements
from sasa_tf.analysis.cost.model_cost import LayerCost, ModelCost
from sasa_tf.analysis.cost.registry import find_rule
from sasa_tf.analysis.cost.shapes import output_shapes

# The paper's, for models that leave it open.
DEFAULT_SIZE = 224


def cost_model(
  model: Any,
  input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
  convention: str | Convention = "paper",
  *,
  batch_size: int = 1,
  dtype: str = "float32",
) -> ModelCost:
  """Counts parameters, FLOPs and bytes of a forward pass in closed form; executes nothing.

  The counts follow from the layers' arguments and the size of the input. They do not depend on
  the implementation of attention that was chosen, and never count what one of them wastes.

  Example:
    >>> cost = cost_model(sasa_tf.keras.SASAResNet(50), (224, 224, 3), "mac")
    >>> f"{cost.flops / 1e9:.3f} G, {cost.parameters:,}"
    '6.969 G, 15,966,504'

  Args:
    model: a functional or built sequential model of Keras 3 or tf_keras, models within it included:
      `SASAResNet`, Model Garden's `ClassificationModel`, or any that uses our layers. Or a
      detector with `backbone`, `decoder` and `head`, as ours of Model Garden's `RetinaNetModel`,
      which counts up to the class logits and boxes of all anchors.
    input_shape: (H, W, C), or what else follows the batch; a sequence of such shapes for a model
      of several inputs. None for the model's own, with 224 for a size that it leaves open. The
      model need not have been built for this size.
    convention: what counts as a FLOP, "paper" (fitted to the rows of the paper's tables) or "mac"
      (2 a multiply-add); see `CONVENTIONS`.
    batch_size: B, of the bytes. Parameters and FLOPs do not depend on it.
    dtype: of activations and weights when they are read and written, for example "bfloat16".

  Returns:
    The cost. Layers without a rule are in its `unknown`, and their FLOPs and bytes in no sum.

  Raises:
    TypeError: not a model whose calls can be walked.
    ValueError: a shape that the model cannot take, an unknown convention or dtype.
  """
  stages = _stages(model)
  graphs = list(map(_walkable, stages))
  if not isinstance(batch_size, int) or batch_size < 1:
    raise ValueError(f"batch_size must be a positive int; received {batch_size!r}.")
  shapes = _input_shapes(stages[0], input_shape)
  walker = _Walker(find_convention(convention), batch_size, _size_of(dtype))
  maps = [(1, *shape) for shape in shapes]
  for stage, graph in zip(stages, graphs, strict=True):
    maps = walker.walk(graph, maps, f"{stage.name}/" if len(stages) > 1 else "")
  return ModelCost(
    model=model.name,
    input_shapes=shapes,
    convention=walker.convention,
    batch_size=batch_size,
    dtype=tf.as_dtype(dtype).name,
    layers=tuple(walker.layers),
  )


def _stages(model: Any) -> list[Any]:
  """Returns the models that a model consists of, in the order in which they are called."""
  if graph_of(model) or not all(hasattr(model, part) for part in ("backbone", "decoder", "head")):
    return [model]
  # Ours within Model Garden's.
  head = getattr(model.head, "head", model.head)
  return [part for part in (model.backbone, model.decoder, head) if part is not None]


def _walkable(model: Any) -> Graph:
  graph = graph_of(model)
  if graph is None:
    raise TypeError(
      f"cost_model needs a functional model, or a sequential one that is built; received "
      f"{type(model).__name__}, whose calls cannot be walked. Wrap it: "
      "keras.Model(inputs, layer(inputs)) with inputs = keras.Input((224, 224, 3))."
    )
  return graph


def _size_of(dtype: str) -> int:
  try:
    return tf.as_dtype(dtype).size
  except TypeError as error:
    raise ValueError(
      f"dtype must be the name of one, for example 'float32' or 'bfloat16'; received {dtype!r}."
    ) from error


def _input_shapes(model: Any, input_shape: Any) -> tuple[Shape, ...]:
  """Returns the shape of each input without the batch, all sizes known."""
  own = [tuple(tensor.shape)[1:] for tensor in model.inputs]
  if input_shape is None:
    return tuple(tuple(DEFAULT_SIZE if n is None else n for n in shape) for shape in own)
  several = all(isinstance(shape, (tuple, list)) for shape in input_shape)
  shapes = tuple(map(tuple, input_shape if several else [input_shape]))
  if len(shapes) != len(own) or not all(map(_fits, shapes, own)):
    expected = " and ".join(str(shape) for shape in own)
    raise ValueError(
      "input_shape must be (H, W, C), positive ints without the batch, one such shape for each "
      f"input; {model.name} was built for {expected}, of which H and W may be others; received "
      f"{input_shape!r}."
    )
  return shapes


def _fits(shape: Shape, own: tuple[int | None, ...]) -> bool:
  """Whether a model with an input of the shape `own` can be given `shape`: any H and W, its C."""
  sizes = len(shape) == len(own) and all(isinstance(n, int) and n > 0 for n in shape)
  return sizes and own[-1] in (None, shape[-1])


class _Walker:
  """Carries shapes through a model, and collects what its calls cost.

  Attributes:
    convention: of the FLOPs.
    layers: of the calls so far.
  """

  def __init__(self, convention: Convention, batch_size: int, dtype_size: int):
    self.convention = convention
    self.layers: list[LayerCost] = []
    self._batch_size = batch_size
    self._dtype_size = dtype_size
    self._calls: Counter[int] = Counter()  # id of a layer -> how often it was called

  def walk(self, graph: Graph, inputs: Sequence[Shape], path: str = "") -> list[Shape]:
    """Walks the calls of a graph, those of graphs within it too; returns its output shapes."""
    shapes = dict(zip(graph.inputs, inputs, strict=True))
    for call in graph.calls:
      name = f"{path}{call.layer.name}"
      # An input layer hands on what the graph was given.
      given = [shapes[key] for key in call.inputs or call.outputs]
      inner = graph_of(call.layer)
      outputs = self.walk(inner, given, f"{name}/") if inner else self._visit(call, name, given)
      shapes.update(zip(call.outputs, outputs, strict=True))
    return [shapes[key] for key in graph.outputs]

  def _visit(self, call: Call, name: str, inputs: list[Shape]) -> list[Shape]:
    layer = call.layer
    rule = find_rule(layer)
    outputs = output_shapes(call, name, inputs, by_layer=rule is not None)
    facts = rule(layer, inputs, outputs) if rule else None
    if facts:
      _check_weights(layer, facts, name, inputs)
    self._calls[id(layer)] += 1
    count = self._calls[id(layer)]
    parameters, statistics = _weights(layer, facts) if count == 1 else (0, 0)
    cost = LayerCost(
      name=f"{name}:{count}" if count > 1 else name,
      type=type(layer).__name__,
      output_shape=outputs[0][1:],
      parameters=parameters,
      statistics=statistics,
    )
    self.layers.append(self._with_work(cost, facts, inputs, outputs) if facts else cost)
    return outputs

  def _with_work(
    self, cost: LayerCost, facts: Facts, inputs: list[Shape], outputs: list[Shape]
  ) -> LayerCost:
    moved = elements(inputs) + elements(outputs) if facts.moves else 0
    return dataclasses.replace(
      cost,
      work=dict(facts.work),
      flops=self.convention.flops(facts.work),
      activation_bytes=moved * self._batch_size * self._dtype_size,
      weight_bytes=(facts.parameters + facts.statistics) * self._dtype_size,
    )


def _weights(layer: Any, facts: Facts | None) -> tuple[int, int]:
  """Returns parameters and statistics: of the rule, or of the weights of a foreign layer."""
  if facts:
    return facts.parameters, facts.statistics
  return (
    _count(getattr(layer, "trainable_weights", ())),
    _count(getattr(layer, "non_trainable_weights", ())),
  )


def _count(weights: Sequence[Any]) -> int:
  return sum(math.prod(weight.shape) for weight in weights)


def _check_weights(layer: Any, facts: Facts, name: str, inputs: Sequence[Shape]) -> None:
  """Holds the closed form to the weights that the layer has.

  They differ where the layer cannot take these inputs (a classifier behind `Flatten`), or is not
  what its arguments say (quantized, adapted).
  """
  found = _count(getattr(layer, "weights", ()))
  if found != facts.parameters + facts.statistics:
    raise ValueError(
      f"{name} has {found:,} weights, but on inputs of shape {[shape[1:] for shape in inputs]} "
      f"{type(layer).__name__} would have {facts.parameters + facts.statistics:,}. It was built "
      "for inputs of another size, or altered since: give the input_shape that the model was "
      "built for."
    )
