"""The registry of layer rules: closed-form counts of the operations of a layer call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape

# (layer, input shapes, output shapes) -> the operations, or None if the rule does not support the
# layer's settings.
Rule = Callable[[Any, Sequence[Shape], Sequence[Shape]], LayerOps | None]

_rules: dict[type | str, Rule] = {}


def layer_rule(*layers: type | str) -> Callable[[Rule], Rule]:
  """Registers the rule of one or more layers, as a decorator.

  The rule takes the layer and the shapes of its inputs and outputs, with a batch size of 1 and no
  unknown sizes. It returns a `LayerOps`, or None if it does not support the layer's settings.

  Examples:
    >>> import math
    >>> from sasa_tf.analysis import LayerOps, layer_rule
    >>> @layer_rule(MyScale)
    ... def my_scale(layer, inputs, outputs):
    ...   return LayerOps(
    ...     parameters=outputs[0][-1], op_counts={"elementwise": math.prod(outputs[0])}
    ...   )

  Args:
    *layers: layer classes; for layers and operations of Keras 3 and tf_keras, names of classes.

  Returns:
    A decorator that returns the rule unchanged.
  """

  def register(rule: Rule) -> Rule:
    for layer in layers:
      _rules[layer] = rule
    return rule

  return register


def _rule_of_class(cls: type) -> Rule | None:
  if cls in _rules:
    return _rules[cls]
  package, _, rest = cls.__module__.partition(".")
  # Looked up by name, so that neither Keras version is imported for the layers of the other.
  return _rules.get(cls.__name__) if package in ("keras", "tf_keras") and rest else None


def find_rule(layer: Any) -> Rule | None:
  """Returns the rule of a layer, or None if it has none.

  A subclass inherits the rule of its base class unless it overrides `call`.
  """
  for cls in type(layer).__mro__:
    rule = _rule_of_class(cls)
    if rule is not None:
      same = getattr(type(layer), "call", None) is getattr(cls, "call", None)
      return rule if same else None
  return None
