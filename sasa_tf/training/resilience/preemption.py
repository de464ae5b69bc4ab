"""SIGTERM, with which schedulers take machines away: the run saves and ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

# "Temporary failure, try again" of sysexits.h. Not 143: that is what shells report of a process
# that SIGTERM ended at once, with nothing saved.
EXIT_STATUS = os.EX_TEMPFAIL


class PreemptedError(Exception):
  """The run was asked to end, and its checkpoint is written."""


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
