"""The reference of all keys and their valid values, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from official.core import exp_factory
from official.modeling.hyperparams import base_config

from sasa_tf.training.config_validation.field_check import expected_values
from sasa_tf.training.config_validation.schema import fields_of, section_class, sections


def markdown(experiments: Iterable[str]) -> str:
  """Returns one table for each configuration class of the experiments.

  Args:
    experiments: names of registered experiments.
  """
  paths: dict[type[base_config.Config], list[str]] = {}
  for experiment in experiments:
    for path, config, _ in sections(exp_factory.get_exp_config(experiment)):
      for found, section in [(path, type(config)), *_optional_sections(path, type(config))]:
        known = paths.setdefault(section, [])
        if found not in known:
          known.append(found)
  all_keys = [key for keys in paths.values() for key in keys]
  tables = []
  for section, keys in sorted(paths.items(), key=lambda item: item[1]):
    rows = _rows(section)
    if rows and keys != [""]:
      names = ", ".join(f"`{key}`" for key in keys)
      if any(all_keys.count(key) > 1 for key in keys):
        names += f" ({section.__name__})"
      tables.append("\n".join([f"### {names}", "", "| key | values |", "|---|---|", *rows, ""]))
  return "\n".join(tables)


def _optional_sections(
  path: str, config_class: type[base_config.Config]
) -> list[tuple[str, type[base_config.Config]]]:
  """Returns the sections below a class that are null by default."""
  found = []
  for name, field in fields_of(config_class).items():
    section = section_class(field.hint)
    if section is not None and field.nullable:
      child = f"{path}.{name}"
      found += [(child, section), *_all_below(child, section)]
  return found


def _all_below(
  path: str, config_class: type[base_config.Config]
) -> list[tuple[str, type[base_config.Config]]]:
  found = []
  for name, field in fields_of(config_class).items():
    section = section_class(field.hint)
    if section is not None:
      found += [(f"{path}.{name}", section), *_all_below(f"{path}.{name}", section)]
  return found


def _rows(config_class: type[base_config.Config]) -> list[str]:
  rows = []
  for name, field in fields_of(config_class).items():
    if section_class(field.hint) is None:
      values = expected_values(config_class, field).replace("|", "\\|").replace("*", "\\*")
      rows.append(f"| `{name}` | {values} |")
  return rows
