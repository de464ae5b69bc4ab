"""Applies the overrides of one source to a configuration, after checking each key and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from official.core import config_definitions
from official.modeling.hyperparams import base_config

from sasa_tf.errors import did_you_mean
from sasa_tf.training.config_validation.conversion import type_in_words
from sasa_tf.training.config_validation.field_check import check_value
from sasa_tf.training.config_validation.problems import Problem, show, wrong_value
from sasa_tf.training.config_validation.schema import (
  field_of,
  names_of,
  section_class,
  sections,
)

# Of the keys that an error suggests.
_MAX_PATHS = 3


class Overrides:
  """Applies overrides and collects their problems.

  Attributes:
    params: the configuration.
    problems: problems of all sources so far.
    sources: {dotted key: source that set it last}.
  """

  def __init__(self, params: config_definitions.ExperimentConfig):
    """Starts with the configuration `params`, which `apply` changes."""
    self.params = params
    self.problems: list[Problem] = []
    self.sources: dict[str, str] = {}

  def apply(self, tree: Any, source: str) -> None:
    """Applies the valid ones of nested overrides and collects the problems of the others.

    Args:
      tree: parsed YAML.
      source: file or flag.
    """
    valid = self.check(tree, source)
    if valid:
      self.params.override(valid, is_strict=True)

  def check(self, tree: Any, source: str) -> dict[str, Any]:
    """Returns the valid ones of nested overrides, in the types of their fields; see `apply`."""
    if not isinstance(tree, Mapping):
      received = "an empty file" if tree is None else show(tree)
      self.problems.append(
        Problem(
          f"{source}: expected nested keys, such as 'trainer: {{train_steps: 100}}'; received "
          f"{received}. Write the keys to override, or omit it."
        )
      )
      return {}
    return self._check_section(self.params, tree, source, "")

  def _check_section(
    self, config: base_config.Config, tree: Mapping[Any, Any], source: str, path: str
  ) -> dict[str, Any]:
    """Returns the valid part of the overrides of one section."""
    valid, known = {}, names_of(config)
    for key, value in tree.items():
      child = f"{path}.{key}" if path else str(key)
      if not isinstance(key, str) or key not in known:
        self.problems.append(self._unknown_key(key, known, source, path))
        continue
      field = field_of(config, key)
      current = getattr(config, key)
      section = section_class(field.hint)
      if isinstance(current, base_config.Config) and section_class(type(current)):
        section = type(current)
      elements = _section_of_elements(field.hint)
      if section is not None and value is not None:
        start = current if isinstance(current, section) else section()
        if self._is_mapping(value, source, child, start):
          valid[key] = self._check_section(start, value, source, child)
      elif elements is not None and isinstance(value, (list, tuple)):
        self._check_elements(elements, value, source, child, valid, key)
      else:
        self.sources[child] = source
        converted, problem = check_value(type(config), field, child, value, source)
        if problem is None:
          valid[key] = converted
        else:
          self.problems.append(problem)
    return valid

  def _check_elements(
    self,
    section: type[base_config.Config],
    values: list[Any] | tuple[Any, ...],
    source: str,
    path: str,
    valid: dict[str, Any],
    key: str,
  ) -> None:
    """Checks a list of sections."""
    before = len(self.problems)
    elements = []
    for index, value in enumerate(values):
      start, child = section(), f"{path}[{index}]"
      if self._is_mapping(value, source, child, start):
        elements.append(self._check_section(start, value, source, child))
    if len(self.problems) == before:
      valid[key] = elements

  def _is_mapping(self, value: Any, source: str, path: str, config: base_config.Config) -> bool:
    if isinstance(value, Mapping):
      return True
    names = sorted(names_of(config))
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    self.problems.append(
      wrong_value(path, value, source, f"{type_in_words(type(config))} ({shown})")
    )
    return False

  def _unknown_key(self, key: Any, known: set[str], source: str, path: str) -> Problem:
    where = f"in {path}" if path else "at the top level"
    shown = repr(key) if isinstance(key, str) and len(key) < 100 else show(key)
    nested = ""
    if isinstance(key, str) and "." in key:
      nested = " In YAML, write a.b as nested keys: {a: {b: ...}}."
    elsewhere = self._paths_of(key)
    if elsewhere:
      hint = f"Did you mean {' or '.join(map(repr, elsewhere))}?"
    else:
      # The complete list helps more than a key of another meaning.
      hint = did_you_mean(str(key), known, cutoff=0.7)
    full = f"{path}.{key}" if path else str(key)
    return Problem(f"{source}: no key {shown} {where}. {hint}{nested}", (full,))

  def _paths_of(self, key: Any) -> list[str]:
    """Returns the dotted keys that end with this one, those with the fewest parts first."""
    found = [
      f"{path}.{key}"
      for path, config, in_use in sections(self.params)
      if path and in_use and key in names_of(config)
    ]
    return sorted(found, key=lambda name: (name.count("."), name))[:_MAX_PATHS]


def _section_of_elements(hint: Any) -> type[base_config.Config] | None:
  """Returns the class of the elements of a list of sections, or None."""
  members = getattr(hint, "__args__", ())
  return section_class(members[0]) if members and isinstance(members[0], type) else None
