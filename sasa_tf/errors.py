"""Errors that programs report in one paragraph, without a traceback, and their exit statuses."""

import difflib
import os
from collections.abc import Iterable


class UserError(ValueError):
  """An error that the user of a program can fix; the message says how."""

  exit_status = 2


class ConfigError(UserError):
  """A configuration is invalid; the message names each key, its value and the expected values."""


class MissingExtraError(UserError, ImportError):
  """A module needs a package that an optional extra of sasa_tf installs."""


class KerasBackendError(UserError, ImportError):
  """Keras 3 has another backend than TensorFlow."""


class PreemptedError(Exception):
  """SIGTERM stopped the run, and its checkpoint is saved."""

  # "Temporary failure, try again" in sysexits.h. Not 143, which shells report for a process that
  # SIGTERM killed at once, with nothing saved.
  exit_status = os.EX_TEMPFAIL


class WorkerLostError(Exception):
  """Another worker or replica of a training is lost, so no further step is possible."""

  # "Service unavailable" in sysexits.h.
  exit_status = os.EX_UNAVAILABLE


_MAX_NAMES = 16


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
  """Returns a sentence that suggests the names closest to a misspelled one.

  Args:
    name: the misspelled name.
    names: the valid names; all are listed if none is close.
    cutoff: minimum similarity of a suggestion, 0 to 1, see `difflib.get_close_matches`.
  """
  names = sorted(map(str, names))
  close = difflib.get_close_matches(name[:100], names, n=3, cutoff=cutoff)
  if close:
    return f"Did you mean {' or '.join(map(repr, close))}?"
  more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
  return f"Known: {', '.join(names[:_MAX_NAMES])}{more}."
