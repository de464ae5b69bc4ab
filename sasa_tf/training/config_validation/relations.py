"""All relations between the fields of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sasa_tf.training.config_validation import (
  data_relations,
  label_relations,
  memory,
  model_relations,
  trainer_relations,
)
from sasa_tf.training.config_validation.problems import Problem
from sasa_tf.training.config_validation.use import Use

_RELATIONS: tuple[Callable[[Use], Iterator[Problem]], ...] = (
  *trainer_relations.RELATIONS,
  *data_relations.RELATIONS,
  *model_relations.RELATIONS,
  *label_relations.RELATIONS,
  memory.find_problems,
)


def find_problems(use: Use, *, valid_fields: bool) -> Iterator[Problem]:
  """Yields the problems of all relations.

  Args:
    use: configuration and how it is used.
    valid_fields: whether each field is valid on its own. Otherwise relations that cannot be
      computed are skipped.
  """
  for relation in _RELATIONS:
    try:
      yield from relation(use)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
      if valid_fields:
        raise
