"""The schema: fields of the configuration classes, with their types, rules and defaults.

Types come from the type hints of the classes, everything else from the tables of rules. A class
inherits the rules of its base classes.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from official.modeling.hyperparams import base_config, oneof, params_dict

from sasa_tf.training.config_validation import (
  image_rules,
  model_rules,
  optimizer_rules,
  run_rules,
)
from sasa_tf.training.config_validation.rules import NO_RULE, Rule

RULES: dict[type, dict[str, Rule]] = {
  **run_rules.RULES,
  **optimizer_rules.RULES,
  **image_rules.RULES,
  **model_rules.RULES,
}


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a configuration class.

  Attributes:
    name: name of the field.
    hint: its type, without null.
    nullable: whether null is valid.
    rule: its rule.
  """

  name: str
  hint: Any
  nullable: bool
  rule: Rule


@functools.cache
def fields_of(config_class: type) -> Mapping[str, Field]:
  """Returns {name: field} of a configuration class."""
  # Model Garden's helper classes have annotations that are no fields.
  hints = get_type_hints(config_class)
  result = {}
  for field in dataclasses.fields(config_class):
    rule = _rule(config_class, field.name)
    hint, nullable = _without_none(hints[field.name])
    if rule.hint is not None:
      hint = rule.hint
    result[field.name] = Field(field.name, hint, nullable or rule.nullable, rule)
  return result


def names_of(config: base_config.Config) -> set[str]:
  """Returns the names of the fields of an object, also of those that only the object has."""
  reserved = params_dict.ParamsDict.RESERVED_ATTR
  return {*fields_of(type(config)), *(name for name in vars(config) if name not in reserved)}


def field_of(config: base_config.Config, name: str) -> Field:
  """Returns a field of an object; of any type if its class does not declare it."""
  return fields_of(type(config)).get(name) or Field(name, Any, True, NO_RULE)


def section_class(hint: Any) -> type[base_config.Config] | None:
  """Returns the class of a field that holds nested keys, or None."""
  is_section = isinstance(hint, type) and issubclass(hint, base_config.Config)
  return hint if is_section and dataclasses.fields(hint) else None


def is_free_mapping(hint: Any) -> bool:
  """Returns whether a type is that of sections with keys of any name."""
  return (
    isinstance(hint, type) and issubclass(hint, params_dict.ParamsDict) and not section_class(hint)
  )


def sections(
  config: base_config.Config, path: str = "", in_use: bool = True
) -> Iterator[tuple[str, base_config.Config, bool]]:
  """Yields (path, object, whether it is in use) of a configuration and all nested ones.

  A section is not in use if it belongs to another `type` than the one that is chosen.
  """
  yield path, config, in_use
  chosen = config.type if isinstance(config, oneof.OneOfConfig) else None
  for name in sorted(names_of(config)):
    value = getattr(config, name)
    child = f"{path}.{name}" if path else name
    used = in_use and (not isinstance(config, oneof.OneOfConfig) or name == chosen)
    if isinstance(value, base_config.Config):
      yield from sections(value, child, used)
    elif isinstance(value, (list, tuple)):
      for index, element in enumerate(value):
        if isinstance(element, base_config.Config):
          yield from sections(element, f"{child}[{index}]", used)


def choices_of(config_class: type, field: Field) -> tuple[Any, ...] | None:
  """Returns the valid values of a field if they are a fixed list."""
  if field.rule.choices is not None:
    return field.rule.choices
  if field.name == "type" and issubclass(config_class, oneof.OneOfConfig):
    return tuple(name for name in fields_of(config_class) if name != "type")
  return None


def _rule(config_class: type, name: str) -> Rule:
  for base in config_class.__mro__:
    if name in RULES.get(base, {}):
      return RULES[base][name]
  return NO_RULE


def _without_none(hint: Any) -> tuple[Any, bool]:
  if get_origin(hint) not in (Union, types.UnionType):
    return hint, hint is Any
  members = [member for member in get_args(hint) if member is not type(None)]
  joined = members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007
  return joined, len(members) < len(get_args(hint))
