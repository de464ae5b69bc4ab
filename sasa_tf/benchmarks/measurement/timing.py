"""How long contestants take, measured in turns so that drift of the machine hits all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]


def turns_for(
  run: Callable[[int], object], min_seconds: float, clock: Clock = time.perf_counter
) -> int:
  """Returns how many turns a run needs to take at least `min_seconds`.

  Args:
    run: does so many turns; compiled and warm.
    min_seconds: that a run shall take.
    clock: in seconds.
  """
  turns = 1
  while True:
    start = clock()
    run(turns)
    elapsed = clock() - start
    if elapsed >= min_seconds:
      return turns
    # A tenth more than it seems to need; no more than tenfold, as a short run says little.
    wanted = math.ceil(1.1 * turns * min_seconds / max(elapsed, 1e-9))
    turns = min(max(wanted, turns + 1), 10 * turns)


def round_robin(
  runs: Mapping[Name, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> Iterator[tuple[Name, float | Exception]]:
  """Runs each contestant once a round, in an order that shifts by one from round to round.

  Args:
    runs: by name.
    rounds: how often.
    clock: in seconds.

  Yields:
    (name, seconds) after each run; (name, exception) for a run that failed, which is the last of
    that contestant.
  """
  remaining = list(runs)
  for first in range(rounds):
    shift = first % max(len(remaining), 1)
    for name in remaining[shift:] + remaining[:shift]:
      start = clock()
      try:
        runs[name]()
      except Exception as error:  # out of memory, say: the others go on
        remaining.remove(name)
        yield name, error
      else:
        yield name, clock() - start
