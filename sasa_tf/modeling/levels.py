"""The levels of a feature pyramid: level n has the image's resolution by 2^n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


def sorted_levels(input_specs: Mapping[str, Sequence[int | None]]) -> tuple[int, ...]:
  """Returns the levels of `input_specs` from the finest to the coarsest.

  Args:
    input_specs: {level: shape (B, H, W, C)}.

  Raises:
    ValueError: the keys are not consecutive numbers, written as strings.
  """
  levels = sorted(int(level) for level in input_specs if str(level).isdecimal())
  consecutive = list(range(levels[0], levels[0] + len(levels))) if levels else None
  if len(levels) != len(input_specs) or levels != consecutive:
    raise ValueError(
      "input_specs must be {level: shape (B, H, W, C)} of consecutive levels, as the output_specs "
      f"of a backbone or a pyramid; received the keys {list(input_specs)}."
    )
  return tuple(levels)


def level_inputs(
  keras: ModuleType, input_specs: Mapping[str, Sequence[int | None]]
) -> dict[str, Any]:
  """Returns the symbolic inputs {level: [B, H, W, C]} of a model on several levels."""
  return {
    str(level): keras.Input(shape=tuple(input_specs[str(level)])[1:], name=str(level))
    for level in sorted_levels(input_specs)
  }
