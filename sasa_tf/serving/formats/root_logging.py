"""Keeps converters from changing the root logger of the process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def preserved_root_logger(level: int | None = None) -> Iterator[None]:
  """Restores level, filters and handlers of the root logger at the end.

  Args:
    level: of the root logger meanwhile; None to leave it.
  """
  root = logging.root
  previous, filters, handlers = root.level, list(root.filters), list(root.handlers)
  if level is not None:
    root.setLevel(level)
  try:
    yield
  finally:
    root.setLevel(previous)
    root.filters[:], root.handlers[:] = filters, handlers
