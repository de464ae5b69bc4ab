"""Progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

# In a log, the time between two lines is that share of the time of the work, but at most that many
# times the time at the beginning.
_SHARE_BETWEEN_LINES, _MAX_GROWTH = 0.05, 30
# The bar is short, so that the text fits into a line.
_BAR_FORMAT = "{l_bar}{bar:12}| {n_fmt}/{total_fmt}{progress}"

Item = TypeVar("Item")


class ProgressBar:
  """Shows how many of a known number of items are done, the speed and the remaining time.

  On a terminal this is a tqdm bar, if tqdm is installed. Any other stream, for example a log file,
  receives lines such as

      train step 500/2000 (25%), 3.21 steps/s, 8 min left, loss 1.234

  with less of them the longer the work takes.

  The bar belongs to one process. With worker processes, the parent process calls `advance` with
  the counts that the workers send.

  Examples:
    >>> with ProgressBar(len(files), "Converting", unit="file") as progress:
    ...   for file in files:
    ...     convert(file)
    ...     progress.advance()
  """

  def __init__(
    self,
    total: int,
    description: str = "",
    *,
    unit: str = "item",
    initial: int = 0,
    stream: TextIO | None = None,
    seconds_between_lines: float = 10.0,
    transient: bool = False,
    delay: float = 0.0,
    warmup: bool = False,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Shows the bar and starts its timer.

    Args:
      total: number of items.
      description: the activity, shown before the counts.
      unit: name of one item, singular.
      initial: number of items that are already done.
      stream: where to write; standard error by default.
      seconds_between_lines: minimum time between two lines in a log. It grows with the time that
        the work takes, to at most 30 times as much.
      transient: whether to remove the bar at the end, and to log only work that takes longer than
        `seconds_between_lines`. Otherwise a log also receives a line for the first and the last
        item.
      delay: seconds before the bar appears on a terminal; for work that is usually short.
      warmup: whether the first items take longer, for instance because they compile what they call.
        The speed then begins after the first call of `advance`.
      clock: returns seconds.
    """
    self._stream = stream or sys.stderr
    self._total, self._done, self._unit = total, initial, unit
    self._description, self._has_status = description, False
    self._seconds_between_lines, self._transient = seconds_between_lines, transient
    self._clock, self._delay = clock, delay
    self._first, self._start = initial, clock()
    self._warmup = warmup
    self._begin = self._start
    self._notes: Sequence[str] = ()
    self._speed: str | None = None
    self._last_line = self._start if transient else -float("inf")
    self._bar = self._terminal_bar() if self._stream.isatty() else None

  def __enter__(self) -> ProgressBar:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _terminal_bar(self) -> Any:
    try:
      import tqdm
    except ImportError:  # only optional extras of sasa_tf install it
      return None

    class Bar(tqdm.tqdm):
      """A bar with the text of a log's line after the count."""

      @property
      def format_dict(bar):  # noqa: N805
        return {**super().format_dict, "progress": self._progress_text()}

    return Bar(
      total=self._total,
      initial=self._done,
      desc=self._description or None,
      bar_format=_BAR_FORMAT,
      unit=f" {self._unit}",
      file=self._stream,
      leave=not self._transient,
      delay=self._delay,
      **_width_arguments(self._stream),
    )

  def restart_timer(self) -> None:
    """Excludes the time and the items until now from the speed."""
    self._first, self._start = self._done, self._clock()
    if self._bar is not None:
      self._bar.unpause()

  def set_description(self, description: str) -> None:
    """Replaces the text before the counts."""
    self._description = description
    if self._bar is not None:
      self._bar.set_description(description)

  def set_status(self, status: str, *, important: bool = False) -> None:
    """Shows what is being done, where that says more than the counts.

    In a log, `advance` then writes no lines; each status is a line with the percentage.

    Args:
      status: replaces the description.
      important: whether to log it even if the previous line is more recent than
        `seconds_between_lines`.
    """
    self._has_status = True
    if self._bar is not None:
      self._bar.set_description_str(status)
    elif important or self._line_is_due():
      self._log(f"[{self._share():4.0%}] {status}")

  def advance(
    self,
    count: int = 1,
    metrics: Mapping[str, float] | None = None,
    *,
    speed: str | None = None,
    notes: Sequence[str] = (),
  ) -> None:
    """Counts finished items.

    Args:
      count: number of items finished since the last call.
      metrics: values to show after the speed.
      speed: text instead of the number of items per second.
      notes: texts to show before the metrics.
    """
    self.advance_to(self._done + count, metrics, speed=speed, notes=notes)

  def advance_to(
    self,
    done: int,
    metrics: Mapping[str, float] | None = None,
    *,
    speed: str | None = None,
    notes: Sequence[str] = (),
  ) -> None:
    """As `advance`, with the number of all items that are done."""
    advanced, self._done = done - self._done, done
    self._speed = speed
    self._notes = [*notes, format_metrics(metrics)] if metrics else notes
    if self._warmup and advanced:
      self._warmup = False
      self._first, self._start = done, self._clock()
    if self._bar is not None:
      self._bar.update(advanced)
    elif not self._has_status and advanced:
      finished = done >= self._total and not self._transient
      if finished or self._line_is_due():
        self._log(self._count_text() + self._progress_text())

  def write(self, text: str, stream: TextIO | None = None) -> None:
    """Prints a line above the bar.

    Args:
      text: to print.
      stream: where to print; that of the bar by default.
    """
    stream = stream or self._stream
    if self._bar is not None:
      self._bar.write(text, file=stream)
    else:
      print(text, file=stream, flush=True)

  def close(self) -> None:
    """Leaves the bar as it is, or removes it if it is transient."""
    if self._bar is not None:
      self._bar.close()

  def _share(self) -> float:
    return self._done / max(self._total, 1)

  def _line_is_due(self) -> bool:
    now = self._clock()
    shortest = self._seconds_between_lines
    growing = min(_SHARE_BETWEEN_LINES * (now - self._begin), _MAX_GROWTH * shortest)
    return now - self._last_line >= max(shortest, growing)

  def _count_text(self) -> str:
    counts = f"{self._unit} {self._done}/{self._total} ({self._share():.0%})"
    return f"{self._description} {counts}".strip()

  def _progress_text(self) -> str:
    """Returns ", 3.21 steps/s, 8 min left, loss 1.234"; without speed and time during a warm-up."""
    parts = []
    done = self._done - self._first
    if done > 0:
      per_second = done / max(self._clock() - self._start, 1e-9)
      parts.append(self._speed or format_speed(per_second, self._unit))
      if self._done < self._total:
        parts.append(f"{format_duration((self._total - self._done) / per_second)} left")
    return "".join(f", {part}" for part in [*parts, *self._notes])

  def _log(self, line: str) -> None:
    self._last_line = self._clock()
    print(line, file=self._stream, flush=True)


def track(
  items: Iterable[Item], description: str = "", *, total: int | None = None, **options: Any
) -> Iterator[Item]:
  """Yields items and shows how many are done, where that takes more than a moment.

  Args:
    items: to iterate over.
    description: see `ProgressBar`.
    total: number of items; `len(items)` by default.
    **options: of `ProgressBar`, but `transient` is True and `delay` a second by default.
  """
  if total is None:
    total = len(items)
  with ProgressBar(total, description, **{"transient": True, "delay": 1.0, **options}) as progress:
    for item in items:
      yield item
      progress.advance()


def format_metrics(metrics: Mapping[str, float]) -> str:
  """Returns metrics in one line, "loss 1.234, accuracy 0.5"."""
  return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _width_arguments(stream: TextIO) -> dict[str, Any]:
  """Returns tqdm's arguments for the width; tqdm hides its bar where the width is unknown."""
  try:
    known = os.get_terminal_size(stream.fileno()).columns > 0
  except (OSError, ValueError):
    known = False
  return {"dynamic_ncols": True} if known else {"ncols": shutil.get_terminal_size().columns}


def format_duration(seconds: float) -> str:
  """Returns a time, such as "45 s", "12 min", "3 h 05 min", "2 d 4 h"."""
  minutes = round(seconds / 60)
  if seconds < 120:
    return f"{seconds:.0f} s"
  if minutes < 120:
    return f"{minutes} min"
  hours = round(seconds / 3600)
  if hours < 48:
    return f"{minutes // 60} h {minutes % 60:02} min"
  return f"{hours // 24} d {hours % 24} h"


def format_speed(per_second: float, unit: str) -> str:
  """Returns a speed, such as "1,230 images/s", "3.21 steps/s" or "12.5 s/step".

  Args:
    per_second: number of items.
    unit: name of one item, singular.
  """
  if 0 < per_second < 1:
    return f"{_digits(1 / per_second)} s/{unit}"
  return f"{_digits(per_second)} {unit}s/s"


def _digits(value: float) -> str:
  """Returns a number with three digits or all those before the point."""
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
