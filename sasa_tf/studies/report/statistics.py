"""Means over seeds, and Welch's t-test between two rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# Probability below which a difference is called significant.
SIGNIFICANCE = 0.05
# Difference of fractions, such as accuracies, that counts as equal for `not_lower`.
MARGIN = 0.005


VERDICTS = (
  f"reproduced: the difference is significant (p < {SIGNIFICANCE}) and has the sign that the paper "
  "found; where the paper found no loss, the 95 % confidence interval excludes a loss of more than "
  f"{100 * MARGIN:g} points. opposite: it is significant with the other sign. not at this scale: "
  "neither."
)


class Comparison(NamedTuple):
  """The difference between the means of two rows.

  Attributes:
    difference: mean of the row minus mean of the other one.
    low: lower end of the 95 % confidence interval; NaN with a single seed, or if a value is not
      finite.
    high: its upper end.
    p_value: of Welch's t-test; NaN with a single seed.
  """

  difference: float
  low: float
  high: float
  p_value: float

  @property
  def is_significant(self) -> bool:
    """Whether the means differ at the 5 % level."""
    return self.p_value < SIGNIFICANCE


def spread(values: Sequence[float]) -> float:
  """Returns the standard deviation of a sample; NaN for a single value, or if one is not finite."""
  if len(values) < 2 or not all(map(math.isfinite, values)):
    return math.nan
  return statistics.stdev(values)


def mean(values: Sequence[float]) -> float:
  """Returns the mean of at least one value, which may be infinite or NaN."""
  return sum(values) / len(values)


def compare(values: Sequence[float], others: Sequence[float]) -> Comparison:
  """Compares two samples with Welch's t-test (unequal variances, two-sided)."""
  difference = mean(values) - mean(others)
  if min(len(values), len(others)) < 2 or not math.isfinite(difference):
    return Comparison(difference, math.nan, math.nan, math.nan)
  if spread(values) == spread(others) == 0:
    return Comparison(difference, difference, difference, 1.0 if difference == 0 else 0.0)
  from scipy import stats

  test = stats.ttest_ind(values, others, equal_var=False)
  interval = test.confidence_interval(0.95)
  return Comparison(difference, float(interval.low), float(interval.high), float(test.pvalue))


def verdict(comparison: Comparison, expect: str) -> str:
  """Returns "reproduced", "opposite", "not at this scale", or "one seed" without a test.

  A finding "higher" or "lower" is reproduced if the difference is significant. "not_lower" is
  reproduced if the confidence interval excludes a loss of more than `MARGIN`.

  Args:
    comparison: of the row with the one that the finding compares it with.
    expect: "higher", "lower" or "not_lower".
  """
  if math.isnan(comparison.p_value):
    return "one seed"
  if expect == "not_lower":
    if comparison.low > -MARGIN:
      return "reproduced"
    is_opposite = comparison.is_significant and comparison.difference < 0
  else:
    sign = 1 if expect == "higher" else -1
    if comparison.is_significant and sign * comparison.difference > 0:
      return "reproduced"
    is_opposite = comparison.is_significant
  return "opposite" if is_opposite else "not at this scale"
