"""The check of one value against its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sasa_tf.errors import did_you_mean
from sasa_tf.training.config_validation.conversion import WrongTypeError, convert, type_in_words
from sasa_tf.training.config_validation.problems import Problem, wrong_value
from sasa_tf.training.config_validation.rules import is_too_large, one_of
from sasa_tf.training.config_validation.schema import Field, choices_of

# Of a value that holds the next assignment of --params_override, after another character than ",".
_NEXT_ASSIGNMENT = re.compile(r"[;&\s][A-Za-z_]+\.[\w.]+=")


def expected_values(config_class: type, field: Field) -> str:
  """Returns the valid values of a field in words."""
  or_null = ", or null" if field.nullable else ""
  if field.rule.description:
    return field.rule.description + or_null
  choices = choices_of(config_class, field)
  limits = field.rule.words()
  if choices is not None and field.rule.choices is None:
    limits = one_of(choices)
  kind = type_in_words(field.hint)
  if choices is not None and field.hint in (str, int, bool):
    words = limits
  else:
    words = f"{kind}, {limits}" if limits else kind
  return words + or_null


def check_value(
  config_class: type, field: Field, path: str, value: Any, source: str
) -> tuple[Any, Problem | None]:
  """Returns the value in the type of its field, and its problem or None.

  Args:
    config_class: class of the section.
    field: field of the section, which is no section itself.
    path: dotted key.
    value: the value.
    source: file or flag that sets it, or "".
  """
  if value is None and field.nullable:
    return None, None
  expected = expected_values(config_class, field)
  try:
    if value is None:
      raise WrongTypeError
    converted = convert(value, field.hint)
    if isinstance(converted, Mapping):
      converted = _convert_free_mapping(converted, field)
  except WrongTypeError:
    return value, wrong_value(path, value, source, expected, _type_fix(value, field))
  choices = choices_of(config_class, field)
  valid = field.rule.allows(converted)
  if valid and choices is not None and isinstance(converted, str):
    valid = converted in choices
  if valid:
    return converted, None
  fix = did_you_mean(converted, choices) if choices and isinstance(converted, str) else ""
  if is_too_large(converted):
    fix = "TensorFlow stores it in float32, up to 3.4e38, and integers in 64 bits."
  return value, wrong_value(path, value, source, expected, "" if fix.startswith("Known") else fix)


def _convert_free_mapping(value: Mapping[str, Any], field: Field) -> dict[str, Any]:
  """Converts the values of a field with keys of any name, of which there must be one at least."""
  if not value or not all(key.isidentifier() for key in value):
    raise WrongTypeError
  return {key: convert(element, field.rule.values or Any) for key, element in value.items()}


def _type_fix(value: Any, field: Field) -> str:
  """Returns how to write a value whose type YAML does not recognize as expected."""
  if field.hint is str:
    if isinstance(value, bool):
      return "YAML reads yes, no, on, off, true and false as booleans: put quotes around the text."
    if isinstance(value, (int, float)):
      return f"Put quotes around it: '{value}'." if abs(value) < 1e15 else "Put quotes around it."
    if value is None:
      return "Write '' for no text."
  if field.hint is bool:
    return "Write true or false, without quotes."
  if isinstance(value, str) and _NEXT_ASSIGNMENT.search(value):
    return "Separate assignments by commas: a.b=1,c.d=2."
  if field.hint in (int, float) and isinstance(value, str):
    return "Write a number without quotes and units."
  return ""
