"""Timing of interleaved runs, so that drift of the machine affects all candidates alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]


class Summary(NamedTuple):
  """Median and quartiles of the seconds per step over several runs."""

  median: float
  lower_quartile: float
  upper_quartile: float

  @classmethod
  def of(cls, seconds: Sequence[float]) -> Summary:
    """Returns the summary of at least one run."""
    lower, median, upper = np.percentile(seconds, [25, 50, 75]).tolist()
    return cls(median, lower, upper)

  def overlaps(self, other: Summary) -> bool:
    """Returns whether the two interquartile ranges overlap."""
    return (
      self.lower_quartile <= other.upper_quartile and other.lower_quartile <= self.upper_quartile
    )


def iterations_for(
  run: Callable[[int], object], min_seconds: float, clock: Clock = time.perf_counter
) -> int:
  """Returns the number of iterations that take at least `min_seconds`.

  Args:
    run: executes the given number of iterations; already compiled and warmed up.
    min_seconds: minimum duration of a run.
    clock: returns seconds.
  """
  iterations = 1
  while True:
    start = clock()
    run(iterations)
    elapsed = clock() - start
    if elapsed >= min_seconds:
      return iterations
    # 10 % more than the estimate, and at most ten times as many, as short runs are inaccurate.
    estimate = math.ceil(1.1 * iterations * min_seconds / max(elapsed, 1e-9))
    iterations = min(max(estimate, iterations + 1), 10 * iterations)


def round_robin(
  runs: Mapping[Name, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> Iterator[tuple[Name, float | Exception]]:
  """Runs each candidate once per round; the order is rotated by one from round to round.

  Args:
    runs: the run of each candidate, by name.
    rounds: number of rounds.
    clock: returns seconds.

  Yields:
    (name, seconds) after each run, or (name, exception) for a run that failed; that candidate is
    then not run again.
  """
  remaining = list(runs)
  for first in range(rounds):
    shift = first % max(len(remaining), 1)
    for name in remaining[shift:] + remaining[:shift]:
      start = clock()
      try:
        runs[name]()
      except Exception as error:  # for example out of memory; the other candidates continue
        remaining.remove(name)
        yield name, error
      else:
        yield name, clock() - start
