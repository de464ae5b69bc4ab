"""Hostile values for every field of the experiments, and what may become of them."""

import math
import typing

from official.core import exp_factory
from official.modeling.hyperparams import base_config

from sasa_tf.training.config_validation import schema

EXPERIMENTS = ("sasa_resnet_digits", "retinanet_sasa_scenes")

# As written in YAML.
HOSTILE = (
  *("", "null", "~", "nan", ".nan", ".inf", "-.inf", "1e400", "abc", "'1'", "yes", "off", "true"),
  *("-1", "0", "1.5", "-0.5", "1e3", "0x10", "010", "1:30", "2020-01-01", "9999999999999999999999"),
  *("[]", "[[1]]", "[1, 2]", "[null]", "{}", "{a: 1}", "!!binary aGk=", "!!set {a}", '"\\0"'),
  *('"\\ud800"', "../outside", "/outside", "nonsense", "'  '", "1 2"),
)


def leaves(experiment):
  """Yields (dotted key, section class, field) of every field that holds a value.

  Args:
    experiment: its name, or its configuration.
  """
  params = exp_factory.get_exp_config(experiment) if isinstance(experiment, str) else experiment
  for path, config, _ in schema.sections(params):
    for name, field in schema.fields_of(type(config)).items():
      if not schema.section_class(field.hint) and not _is_config(getattr(config, name)):
        yield f"{path}.{name}" if path else name, type(config), field


def _is_config(value):
  return isinstance(value, base_config.Config)


def value_at(params, path):
  """Returns the value of a dotted key."""
  for name in path.split("."):
    params = getattr(params, name)
  return params


def has_type(value, hint, nullable, exact=True):
  """Returns whether a value has the type of its field, with finite numbers.

  Model Garden's own defaults are integers in some fields of floating-point numbers, so these are
  valid too unless `exact`.
  """
  if value is None:
    return nullable
  if hint is typing.Any:
    return True
  members = typing.get_args(hint)
  origin = typing.get_origin(hint)
  if origin is typing.Union or type(hint).__name__ == "UnionType":
    return any(has_type(value, m, m is type(None), exact) for m in members)
  if isinstance(value, (list, tuple)):
    element = members[0] if members else typing.Any
    return origin is not None and all(has_type(v, element, False, exact) for v in value)
  if isinstance(value, dict):
    return isinstance(hint, type) and issubclass(hint, base_config.Config)
  if origin is not None:
    return False
  if isinstance(value, (bool, int, str)):
    return type(value) is hint or (type(value) is int and hint is float and not exact)
  if isinstance(value, float):
    return hint is float and math.isfinite(value)
  return isinstance(value, hint)


def wrong_types(params):
  """Yields (dotted key, value) of every field of a configuration that has not its type."""
  for path, config, _ in schema.sections(params):
    for field in schema.fields_of(type(config)).values():
      value = getattr(config, field.name)
      if not schema.section_class(field.hint) and not has_type(
        value, field.hint, field.nullable, exact=False
      ):
        yield f"{path}.{field.name}", value
