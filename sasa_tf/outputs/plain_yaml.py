"""Reads YAML of people and of killed programs as plain data, within limits of depth and size.

`sasa_tf.training.config_validation.strict_yaml` does more for configurations, and needs TensorFlow.
"""

from __future__ import annotations

from typing import Any

import yaml

_MAX_DEPTH, _MAX_NODES = 40, 20_000
# What PyYAML raises for a text that has not the form of its tag, such as !!int abc.
_CONSTRUCTOR_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def parse(text: str) -> Any:
  """Returns the value of a YAML document.

  Args:
    text: the document.

  Raises:
    ValueError: it is not YAML, nested too deeply, or has aliases that contain themselves or
      multiply values. The message is one line.
  """
  try:
    value = yaml.safe_load(text)
  except RecursionError:
    raise ValueError("nested too deeply") from None
  except (yaml.YAMLError, *_CONSTRUCTOR_ERRORS) as error:
    raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
  _check_size(value)
  return value


def _check_size(value: Any) -> None:
  nodes, queue = 0, [(value, 0)]
  while queue:
    node, depth = queue.pop()
    nodes += 1
    if depth > _MAX_DEPTH or nodes > _MAX_NODES:
      raise ValueError(
        f"more than {_MAX_DEPTH} levels or {_MAX_NODES:,} values, perhaps of an alias (*name) that "
        "contains itself"
      )
    if isinstance(node, dict):
      queue += [(item, depth + 1) for item in node.values()]
    elif isinstance(node, (list, tuple)):
      queue += [(item, depth + 1) for item in node]
