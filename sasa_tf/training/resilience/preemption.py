"""Preemption: on SIGTERM, the run saves a checkpoint and exits."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
  """Whether the run was asked to stop. To be checked between steps.

  Attributes:
    received: whether SIGTERM arrived.
  """

  def __init__(self):
    self.received = False

  @contextlib.contextmanager
  def on_sigterm(self) -> Iterator[None]:
    """Records SIGTERM within the block. A second SIGTERM terminates the process at once."""

    def handle(number, frame):
      self.received = True
      signal.signal(signal.SIGTERM, signal.SIG_DFL)

    previous = signal.signal(signal.SIGTERM, handle)
    try:
      yield
    finally:
      signal.signal(signal.SIGTERM, previous)
