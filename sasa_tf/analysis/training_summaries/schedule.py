"""When to write summaries that take time."""

from __future__ import annotations

import time
from collections.abc import Callable

# Of the training time, for the summaries after the first one.
MAX_SHARE = 0.01
# TensorBoard shows a sample of them, and each takes up to a megabyte.
MAX_SUMMARIES = 100


class SummarySchedule:
  """Decides after each loop of steps whether a summary is due.

  With an interval, one is due when the step has passed a multiple of it. Without one, they are due
  as often as they take at most `MAX_SHARE` of the time, and not more than `MAX_SUMMARIES` times in
  a training. The first loop and the last step of a training always have one. The first one of a
  process also builds and compiles what the others use, so its time does not count.
  """

  def __init__(
    self,
    train_steps: int,
    first_step: int,
    interval: int | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the timer.

    Args:
      train_steps: last step of the training.
      first_step: the global step now.
      interval: number of steps; None to choose it.
      clock: returns seconds.
    """
    self._train_steps, self._interval, self._clock = train_steps, interval, clock
    self._last_step, self._num_written = first_step, 0
    self._start = clock()
    self._spent = self._longest = 0.0

  def is_due(self, step: int) -> bool:
    """Returns whether to write a summary at this step."""
    if self._num_written == 0 or step >= self._train_steps:
      return True
    if self._interval is not None:
      return step // self._interval > self._last_step // self._interval
    if step - self._last_step < self._train_steps / MAX_SUMMARIES:
      return False
    return self._spent + self._longest <= MAX_SHARE * (self._clock() - self._start)

  def record(self, step: int, seconds: float) -> None:
    """Records that a summary was written, and how long that took."""
    self._last_step = step
    self._num_written += 1
    if self._num_written > 1:
      self._spent += seconds
      self._longest = max(self._longest, seconds)
