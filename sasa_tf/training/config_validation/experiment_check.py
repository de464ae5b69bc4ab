"""Checks a complete configuration: the ranges of all fields, then the relations between them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

from absl import logging
from official.core import config_definitions
from official.modeling.hyperparams import base_config

from sasa_tf.training.config_validation import memory, relations
from sasa_tf.training.config_validation.field_check import check_value, expected_values
from sasa_tf.training.config_validation.problems import Problem, raise_problems, wrong_value
from sasa_tf.training.config_validation.schema import field_of, names_of, section_class, sections
from sasa_tf.training.config_validation.use import Use


def check_experiment(
  params: config_definitions.ExperimentConfig,
  mode: str | None = None,
  *,
  num_logical_cpus: int = 0,
  earlier: Iterable[Problem] = (),
  sources: Mapping[str, str] | None = None,
) -> None:
  """Checks all fields, their relations and the memory that they need.

  Args:
    params: configuration of the experiment.
    mode: Model Garden's mode, "export", or None if the use of the configuration is not known.
      Checks that do not concern the mode are skipped.
    num_logical_cpus: number of replicas on the CPU, or 0.
    earlier: problems of the overrides, which are reported together with the others.
    sources: {dotted key: file or flag that set it}.

  Raises:
    ConfigError: there is a problem; the message lists all of them.
  """
  problems = list(earlier)
  reported = {path for problem in problems for path in problem.paths}
  problems += (
    problem
    for problem in _check_fields(params, mode, sources or {})
    if reported.isdisjoint(problem.paths)
  )
  invalid = {path for problem in problems for path in problem.paths}
  use = Use(params, mode, num_logical_cpus)
  for problem in relations.find_problems(use, valid_fields=not problems):
    # A relation to an invalid field is reported once the field is valid.
    if not any(_is_part(path, other) for path in problem.paths for other in invalid):
      problems.append(problem)
  if not problems:
    problems += _check_restrictions(params)
  raise_problems(problems)
  for warning in memory.warnings(use):
    _log_once(warning)


@functools.cache
def _log_once(warning: str) -> None:
  logging.warning("%s", warning)


def _check_fields(
  params: config_definitions.ExperimentConfig, mode: str | None, sources: Mapping[str, str]
) -> Iterator[Problem]:
  is_run = mode is not None and mode != "export"
  for path, config, in_use in sections(params):
    for name in sorted(names_of(config)):
      value = getattr(config, name)
      field = field_of(config, name)
      child = f"{path}.{name}" if path else name
      if isinstance(value, base_config.Config) or section_class(field.hint):
        continue
      if isinstance(value, (list, tuple)) and any(
        isinstance(element, base_config.Config) for element in value
      ):
        if field.rule.lengths is not None and len(value) not in field.rule.lengths:
          yield wrong_value(child, value, sources.get(child, ""), field.rule.words())
        continue
      source = sources.get(child, "")
      _, problem = check_value(type(config), field, child, value, source)
      if problem is not None:
        yield problem
      elif value is None and field.rule.required and in_use and is_run:
        expected = expected_values(type(config), field).removesuffix(", or null")
        yield wrong_value(child, value, source, expected, "This run needs it.")


def _check_restrictions(params: config_definitions.ExperimentConfig) -> list[Problem]:
  """Returns the problem of Model Garden's own restrictions, which an experiment may declare."""
  try:
    params.validate()
  except (KeyError, ValueError) as error:
    return [Problem(f"a restriction of the experiment is violated: {error.args[0]}")]
  return []


def _is_part(path: str, other: str) -> bool:
  return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")
