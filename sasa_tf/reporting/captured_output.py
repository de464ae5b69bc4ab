"""Hides what libraries print, including their native code."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from sasa_tf.errors import UserError


@contextlib.contextmanager
def hidden_output(hide: bool = True) -> Iterator[None]:
  """Hides what this process writes to standard output and standard error.

  It is printed after all if the block raises another error than `UserError`.

  Args:
    hide: False to do nothing.
  """
  if not hide:
    yield
    return
  with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
    _flush()
    for descriptor in (1, 2):
      saved = os.dup(descriptor)
      stack.callback(os.close, saved)
      stack.callback(os.dup2, saved, descriptor)
      os.dup2(file.fileno(), descriptor)
    stack.callback(_flush)
    try:
      yield
    except UserError:
      raise
    except BaseException:
      stack.close()
      file.seek(0)
      print(file.read().decode(errors="replace"), end="", file=sys.stderr)
      raise


def _flush() -> None:
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
