"""Median and quartiles of repeated runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
  """Of the seconds that one step took in each of several runs."""

  median: float
  lower_quartile: float
  upper_quartile: float

  @classmethod
  def of(cls, seconds: Sequence[float]) -> Summary:
    """Summarises at least one run."""
    lower, median, upper = np.percentile(seconds, [25, 50, 75]).tolist()
    return cls(median, lower, upper)

  def overlaps(self, other: Summary) -> bool:
    """Whether the ranges between the quartiles have a point in common."""
    return (
      self.lower_quartile <= other.upper_quartile and other.lower_quartile <= self.upper_quartile
    )
