"""What the benchmark is doing: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """Counts contestants' runs, compilations among them, up to a known number."""

  def __init__(self, total: int, stream: TextIO | None = None):
    """Shows a bar if `stream` (standard error by default) is a terminal and tqdm is installed."""
    self._stream = stream or sys.stderr
    self._total, self._done = total, 0
    self._last_line = -float("inf")
    self._bar = None
    if self._stream.isatty():
      try:
        import tqdm
      except ImportError:
        return  # TensorFlow does not bring it; lines will do
      self._bar = tqdm.tqdm(
        total=total,
        unit="run",
        file=self._stream,
        ncols=shutil.get_terminal_size().columns,  # tqdm shows no bar where the width is unknown
      )

  def begin(self, activity: str, *, important: bool = False) -> None:
    """Says what is going on now; in a log the unimportant at most every ten seconds."""
    if self._bar is not None:
      self._bar.set_description_str(activity)
      return
    now = time.monotonic()
    if important or now - self._last_line > _SECONDS_BETWEEN_LINES:
      self._last_line = now
      share = self._done / max(self._total, 1)
      print(f"[{share:4.0%}] {activity}", file=self._stream, flush=True)

  def advance(self, runs: int = 1) -> None:
    """Counts finished runs."""
    self._done += runs
    if self._bar is not None:
      self._bar.update(runs)

  def write(self, text: str) -> None:
    """Prints to standard output, above the bar."""
    if self._bar is not None:
      self._bar.clear()
    print(text, flush=True)
    if self._bar is not None:
      self._bar.refresh()

  def close(self) -> None:
    """Removes the bar."""
    if self._bar is not None:
      self._bar.leave = False
      self._bar.close()
