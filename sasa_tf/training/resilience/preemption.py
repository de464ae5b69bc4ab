"""SIGTERM, with which schedulers take machines away: the run saves and ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
  """Whether somebody asked the run to end; to be looked at between steps."""

  def __init__(self):
    self.received = False

  @contextlib.contextmanager
  def on_sigterm(self) -> Iterator[None]:
    """Notes SIGTERM within the block; a second one ends the process at once."""

    def note(number, frame):
      self.received = True
      signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, note)
    try:
      yield
    finally:
      signal.signal(signal.SIGTERM, before)
