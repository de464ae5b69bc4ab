"""Checks values of JSON files against type annotations, before their users rely on them."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

# JSON has numbers of any size; larger ones have no place in a result, and cannot be drawn.
_MAX_INTEGER = 1 << 53
_MAX_MAGNITUDE = 1e18

Finite = Annotated[float, lambda value: abs(value) <= _MAX_MAGNITUDE]
Positive = Annotated[float, lambda value: 0 < value <= _MAX_MAGNITUDE]
# NaN and infinity too, which a training that diverged has.
Metric = Annotated[float, lambda value: abs(value) <= _MAX_MAGNITUDE or not math.isfinite(value)]
Count = Annotated[int, lambda value: value >= 0]


def conforms(value: Any, hint: Any) -> bool:
  """Returns whether a value has the type of an annotation.

  Args:
    value: from a JSON file, or a dataclass of such values.
    hint: a scalar type, `Any`, `Literal`, a union, `list`, `tuple` or `dict` with the types of
      their elements, a `TypedDict`, a dataclass, or `Annotated` with predicates. Integers are
      numbers too, booleans are not. Further keys than those of a `TypedDict` are allowed.
  """
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if hint is None or hint is types.NoneType:
    return value is None
  if origin is Annotated:
    return conforms(value, arguments[0]) and all(check(value) for check in arguments[1:])
  if origin is Literal:
    return any(type(value) is type(one) and value == one for one in arguments)
  if origin in (typing.Union, types.UnionType):
    return any(conforms(value, one) for one in arguments)
  if hint in (int, float):
    return _is_number(value, hint)
  if origin is dict:
    return isinstance(value, dict) and all(
      conforms(key, arguments[0]) and conforms(item, arguments[1]) for key, item in value.items()
    )
  if origin is list:
    return isinstance(value, list) and all(conforms(item, arguments[0]) for item in value)
  if origin is tuple:
    return isinstance(value, tuple) and _conform(value, arguments)
  if dataclasses.is_dataclass(hint):
    return isinstance(value, hint) and all(
      conforms(getattr(value, name), kind) for name, kind in _hints(hint).items()
    )
  if typing.is_typeddict(hint):
    return (
      isinstance(value, Mapping)
      and hint.__required_keys__ <= value.keys()
      and all(conforms(value[name], kind) for name, kind in _hints(hint).items() if name in value)
    )
  return isinstance(value, hint)


def _is_number(value: Any, kind: type) -> bool:
  if type(value) is int:
    return abs(value) <= _MAX_INTEGER
  return kind is float and type(value) is float


def _conform(values: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
  """Returns whether the elements of a tuple have the types of `tuple[...]`."""
  if len(kinds) == 2 and kinds[1] is Ellipsis:
    return all(conforms(item, kinds[0]) for item in values)
  return len(values) == len(kinds) and all(map(conforms, values, kinds))


def _hints(annotated: type) -> dict[str, Any]:
  return typing.get_type_hints(annotated, include_extras=True)
