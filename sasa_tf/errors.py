"""Errors that programs report in one paragraph, without a traceback, and their exit statuses."""

import os


class UserError(ValueError):
  """An error that the user of a program can fix; the message says how."""

  exit_status = 2


class MissingExtraError(UserError, ImportError):
  """A module needs a package that an optional extra of sasa_tf installs."""


class PreemptedError(Exception):
  """SIGTERM stopped the run, and its checkpoint is saved."""

  # "Temporary failure, try again" in sysexits.h. Not 143, which shells report for a process that
  # SIGTERM killed at once, with nothing saved.
  exit_status = os.EX_TEMPFAIL


class WorkerLostError(Exception):
  """Another worker of a multi-worker training is lost, so no further step is possible."""

  # "Service unavailable" in sysexits.h.
  exit_status = os.EX_UNAVAILABLE
