"""Conversion of values from YAML to the types of the fields, and the types in words."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from sasa_tf.training.config_validation.schema import is_free_mapping, section_class

# Integers up to this size are exact as floating-point numbers.
_EXACT = 2**53


class WrongTypeError(ValueError):
  """A value has not the type of its field."""


def convert(value: Any, hint: Any) -> Any:
  """Returns the value as the type of a field.

  Integers become floating-point numbers where these are expected, and the other way around if
  nothing is lost; lists become tuples.

  Args:
    value: value from YAML, not null.
    hint: type hint of the field, which is no section.

  Raises:
    WrongTypeError: the value is of another type.
  """
  if hint is Any:
    return value
  origin = get_origin(hint)
  if origin in (Union, types.UnionType):
    return _convert_union(value, get_args(hint))
  if hint is tuple or origin is tuple:
    return _convert_tuple(value, get_args(hint))
  if _is_sequence(hint):
    if not isinstance(value, (list, tuple)):
      raise WrongTypeError
    element = (get_args(hint) or (Any,))[0]
    converted = [convert(v, element) for v in value]
    return tuple(converted) if isinstance(value, tuple) else converted
  if is_free_mapping(hint):
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
      raise WrongTypeError
    return value
  return _convert_scalar(value, hint)


def _convert_scalar(value: Any, hint: Any) -> Any:
  if isinstance(value, bool) or hint is bool:
    if isinstance(value, bool) and hint is bool:
      return value
    raise WrongTypeError
  if hint is int and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
    return int(value)
  if hint is float and isinstance(value, int):
    if value.bit_length() > 1000:
      raise WrongTypeError
    return float(value)
  if not isinstance(hint, type) or not isinstance(value, hint):
    raise WrongTypeError
  return value


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
  # An exact type first, so that the integer of `int | float` stays one.
  for member in sorted(members, key=lambda member: member is not type(value)):
    try:
      return convert(value, member)
    except WrongTypeError:
      continue
  raise WrongTypeError


def _convert_tuple(value: Any, members: tuple[Any, ...]) -> tuple[Any, ...]:
  if not isinstance(value, (list, tuple)):
    raise WrongTypeError
  if len(members) == 2 and members[1] is Ellipsis:
    members = (members[0],) * len(value)
  if not members:
    return tuple(value)
  if len(members) != len(value):
    raise WrongTypeError
  return tuple(convert(v, member) for v, member in zip(value, members, strict=True))


def _is_sequence(hint: Any) -> bool:
  origin = get_origin(hint) or hint
  return origin in (list, collections.abc.Sequence)


def type_in_words(hint: Any) -> str:
  """Returns the type of a field in words, for messages and documents."""
  words = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
  if hint in words:
    return words[hint]
  if hint is Any:
    return "any value"
  if section_class(hint) or is_free_mapping(hint):
    return "nested keys"
  origin, members = get_origin(hint), get_args(hint)
  if origin in (Union, types.UnionType):
    return " or ".join(dict.fromkeys(map(type_in_words, members)))
  if origin is tuple and members and Ellipsis not in members:
    return f"a list of {len(members)} elements, each {type_in_words(members[0])}"
  element = members[0] if members else Any
  return f"a list, each element {type_in_words(element)}"
