"""Entry point shared by all programs: logging, error messages and exit statuses."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

from absl import app, flags, logging

from sasa_tf import extras
from sasa_tf.errors import (
  KerasBackendError,
  MissingExtraError,
  PreemptedError,
  UserError,
  WorkerLostError,
)


def run(main: Callable[[list[str]], None]) -> None:
  """Runs `main` with absl and reports the errors of `sasa_tf.errors` in one paragraph.

  The exit status is that of the error: 2 for `UserError`, and separate ones for preemption, the
  loss of a worker and SIGINT.
  """
  # Hides TensorFlow's messages about the CPU and missing GPUs by default.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

  # Names of classes and files may hold characters that the terminal's encoding lacks.
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")

  def guarded(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)
    try:
      main(argv)
    except PreemptedError as ended:
      print(ended, file=sys.stderr)
      sys.exit(ended.exit_status)
    except (UserError, WorkerLostError) as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(error.exit_status)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(128 + signal.SIGINT)

  app.run(guarded)


def require(*modules: str) -> None:
  """Exits with one line if optional packages are missing, or Keras has another backend.

  Call it before importing them.

  Args:
    *modules: keys of `extras.OPTIONAL`.
  """
  try:
    extras.require("this program", *modules)
  except (MissingExtraError, KerasBackendError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_status)


def check_no_positional_args(argv: list[str]) -> None:
  """Raises `UserError` for positional arguments, most often a flag without dashes."""
  if len(argv) > 1:
    raise UserError(f"expected only flags; received {' '.join(argv[1:])!r}. See --help.")
