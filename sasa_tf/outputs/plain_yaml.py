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
    ValueError: it is not YAML, has a key twice in one mapping, is nested too deeply, or has
      aliases that contain themselves or multiply values. The message is one line.
  """
  try:
    value = _Loader(text).get_single_data()
  except RecursionError:
    raise ValueError("nested too deeply") from None
  except (yaml.YAMLError, *_CONSTRUCTOR_ERRORS) as error:
    raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
  _check_size(value)
  return value


class _Loader(yaml.SafeLoader):
  """A safe loader that rejects keys that occur twice, of which PyYAML drops all but the last."""

  def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
    """Composes a mapping, before the keys of others (<<) are merged into it."""
    node = super().compose_mapping_node(anchor)
    known = set()
    for key, _ in node.value:
      if isinstance(key, yaml.ScalarNode):
        if key.value in known:
          raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} occurs twice")
        known.add(key.value)
    return node


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
