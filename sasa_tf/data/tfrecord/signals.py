"""Keeping Ctrl-C away from a few lines."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ignored_interrupts() -> Iterator[None]:
  """Ignores Ctrl-C for milliseconds; processes started inside ignore it for life.

  A signal mask would not do: TensorFlow's threads would still receive the signal.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # Python delivers signals to the main thread alone.
    return
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
