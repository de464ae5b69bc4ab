"""The rule of a field: what its type hint does not express."""

from __future__ import annotations

import dataclasses
import itertools
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

_INT64 = 2**63 - 1
# TensorFlow stores the numbers in float32.
_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127


@dataclasses.dataclass(frozen=True)
class Rule:
  """Valid values of a field, and of each element if it is a sequence.

  Attributes:
    minimum: smallest valid number.
    maximum: largest valid number.
    above: lower limit of the numbers, which is itself invalid.
    below: upper limit of the numbers, which is itself invalid.
    choices: all valid values.
    texts: all valid texts of a field that also accepts numbers.
    excluded: invalid values.
    odd: whether the number must be odd.
    lengths: valid lengths of a sequence.
    increasing: whether each element of a sequence must be larger than the one before.
    unique: whether no element of a sequence may occur twice.
    inside: whether the text is a path that must stay inside the directory of the run.
    pattern: whether the text is a regular expression.
    required: whether a run needs a value other than null, if the section of the field is in use.
    nullable: whether null is valid, as an exception from the type hint.
    hint: type that replaces the hint of the class.
    values: type of the values of a field with keys of any name.
    unit: unit of the number.
    description: the valid values in words, if the ones that the rule generates are unclear.
  """

  minimum: float | None = None
  maximum: float | None = None
  above: float | None = None
  below: float | None = None
  choices: tuple[Any, ...] | None = None
  texts: tuple[str, ...] | None = None
  excluded: tuple[Any, ...] = ()
  odd: bool = False
  lengths: tuple[int, ...] | None = None
  increasing: bool = False
  unique: bool = False
  inside: bool = False
  pattern: bool = False
  required: bool = False
  nullable: bool = False
  hint: Any = None
  values: Any = None
  unit: str = ""
  description: str = ""

  def allows(self, value: Any) -> bool:
    """Returns whether a value of the right type is valid."""
    if value is None or isinstance(value, Mapping):
      return True
    if isinstance(value, (list, tuple)):
      return self._allows_sequence(value)
    if isinstance(value, str):
      return self._allows_text(value)
    if self.choices is not None and value not in self.choices:
      return False
    return isinstance(value, bool) or self._allows_number(value)

  def _allows_sequence(self, value: list[Any] | tuple[Any, ...]) -> bool:
    if self.lengths is not None and len(value) not in self.lengths:
      return False
    if self.unique and len(set(map(str, value))) != len(value):
      return False
    if self.increasing and any(a >= b for a, b in itertools.pairwise(value)):
      return False
    return all(self.allows(element) for element in value)

  def _allows_text(self, value: str) -> bool:
    if "\0" in value or value.encode("utf-8", "replace").decode("utf-8") != value:
      return False
    if self.inside and value and not _is_inside(value):
      return False
    if self.pattern and not _is_pattern(value):
      return False
    valid = self.choices if self.texts is None else self.texts
    return valid is None or value in valid

  def _allows_number(self, value: float) -> bool:
    if not math.isfinite(value) or value in self.excluded:
      return False
    if is_too_large(value):
      return False
    return not (
      (self.minimum is not None and value < self.minimum)
      or (self.maximum is not None and value > self.maximum)
      or (self.above is not None and value <= self.above)
      or (self.below is not None and value >= self.below)
      or (self.odd and value % 2 != 1)
    )

  def words(self) -> str:
    """Returns the limits in words, "" without any."""
    parts = []
    if self.choices is not None:
      parts.append(one_of(self.choices))
    if self.minimum is not None and self.maximum is not None:
      parts.append(f"{_number(self.minimum)} to {_number(self.maximum)}")
    elif self.minimum is not None:
      parts.append(f"at least {_number(self.minimum)}")
    elif self.maximum is not None:
      parts.append(f"at most {_number(self.maximum)}")
    if self.above is not None:
      parts.append(f"greater than {_number(self.above)}")
    if self.below is not None:
      parts.append(f"less than {_number(self.below)}")
    if self.texts is not None:
      parts.append(f"or one of {', '.join(self.texts)}")
    parts += [f"not {_number(value)}" for value in self.excluded]
    parts += ["odd"] * self.odd + ["increasing"] * self.increasing + ["no duplicates"] * self.unique
    if self.lengths is not None:
      parts.append(f"{' or '.join(map(str, self.lengths))} elements")
    if self.inside:
      parts.append("a path inside of model_dir, relative and without '..'")
    if self.pattern:
      parts.append("a regular expression")
    return ", ".join(parts) + (f" ({self.unit})" if self.unit else "")


NO_RULE = Rule()


def _is_inside(path: str) -> bool:
  return (
    not path.startswith("/") and ".." not in path.split("/") and posixpath.normpath(path) != "."
  )


def is_too_large(value: Any) -> bool:
  """Returns whether a value is a finite number that float32 or int64 cannot represent."""
  if isinstance(value, float):
    return _MAX_FLOAT32 < abs(value) < math.inf
  return isinstance(value, int) and abs(value) > _INT64


def _is_pattern(text: str) -> bool:
  try:
    re.compile(text)
  except (re.error, OverflowError, RecursionError):
    return False
  return True


def one_of(values: Sequence[Any]) -> str:
  """Returns a list of valid values in words, as YAML writes them."""
  names = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
  return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _number(value: float) -> str:
  return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value:g}"


def at_least(minimum: float, maximum: float | None = None, **others: Any) -> Rule:
  """Returns the rule of numbers from `minimum` on."""
  return Rule(minimum=minimum, maximum=maximum, **others)


def positive(maximum: float | None = None, **others: Any) -> Rule:
  """Returns the rule of numbers above 0."""
  return Rule(above=0, maximum=maximum, **others)


def fraction(**others: Any) -> Rule:
  """Returns the rule of numbers from 0 to 1."""
  return Rule(minimum=0, maximum=1, **others)


def decay(**others: Any) -> Rule:
  """Returns the rule of numbers from 0 to below 1."""
  return Rule(minimum=0, below=1, **others)


def choice(*values: Any, **others: Any) -> Rule:
  """Returns the rule of a fixed list of values."""
  return Rule(choices=values, **others)
