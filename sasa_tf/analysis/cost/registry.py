"""The table of rules: from a layer's class to what a call of it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sasa_tf.analysis.cost.layer_ops import Facts, Shape

# (layer, shapes of its inputs, shapes of its outputs) -> facts, or None where the layer's settings
# lead beyond what the rule knows.
Rule = Callable[[Any, Sequence[Shape], Sequence[Shape]], Facts | None]

_rules: dict[type | str, Rule] = {}


def layer_rule(*layers: type | str) -> Callable[[Rule], Rule]:
  """Decorates the rule of some layers.

  Example:
    >>> @layer_rule(MyScale)
    ... def my_scale(layer, inputs, outputs):
    ...   return Facts(parameters=outputs[0][-1], work={"elementwise": elements(outputs)})

  Args:
    *layers: classes, or for layers and operations of Keras, of either one, names of classes.

  Returns:
    The decorator; the rule itself stays as it is.
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
  # By name, so that neither Keras must be imported for the other's layers.
  return _rules.get(cls.__name__) if package in ("keras", "tf_keras") and rest else None


def find_rule(layer: Any) -> Rule | None:
  """Returns the rule of a layer, None for a foreign one.

  A subclass follows its parent's rule unless it has a `call` of its own.
  """
  for cls in type(layer).__mro__:
    rule = _rule_of_class(cls)
    if rule is not None:
      same = getattr(type(layer), "call", None) is getattr(cls, "call", None)
      return rule if same else None
  return None
