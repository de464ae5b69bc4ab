"""Entry point shared by all programs: logging, error messages and exit statuses."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags, logging

from sasa_tf import extras
from sasa_tf.bin import machine_errors, process_setup
from sasa_tf.commandline.short_help import short_help
from sasa_tf.compat import startup_messages
from sasa_tf.errors import PreemptedError, UserError, WorkerLostError
from sasa_tf.outputs.path_checks import check_local_input

# Here, because programs import this module before those that import TensorFlow.
startup_messages.silence(sys.argv)
if sys.flags.optimize > 1:
  print(
    "error: Python removes docstrings (-OO, PYTHONOPTIMIZE=2), without which TensorFlow cannot be "
    "imported. Run it with -O at most.",
    file=sys.stderr,
  )
  sys.exit(UserError.exit_status)


def run(main: Callable[[list[str]], None], local_inputs: Sequence[str] = ()) -> None:
  """Runs `main` with absl and reports the errors of `sasa_tf.errors` in one paragraph.

  The exit status is that of the error: 2 for `UserError`, and separate ones for preemption, the
  loss of a worker, SIGINT, and a reader of the output that is gone (as after `| head -1`).

  Args:
    main: receives the program and its positional arguments, which are local paths, if any.
    local_inputs: names of the flags whose values are local paths that the program reads.
  """
  process_setup.use_utf8_file_names()
  process_setup.open_standard_streams()

  if "--helpshort" in sys.argv[1:]:
    source = pathlib.Path(sys.modules[main.__module__].__file__ or "")
    with _output_errors():
      print(short_help(source, f"python -m sasa_tf.bin.{source.stem}"), flush=True)
    return

  def guarded(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)
    try:
      process_setup.check_limits()
      process_setup.check_environment()
      _check_local_inputs(argv[1:], local_inputs)
      main(argv)
      sys.stdout.flush()
    except PreemptedError as ended:
      print(ended, file=sys.stderr)
      sys.exit(ended.exit_status)
    except (UserError, WorkerLostError) as error:
      _fail(error, error.exit_status)
    except BrokenPipeError:
      if not process_setup.is_reader_gone():
        raise
      process_setup.discard_output()
      sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(128 + signal.SIGINT)
    except Exception as error:
      problem = machine_errors.describe(error)
      if problem is None:
        raise
      _fail(problem, UserError.exit_status, discard=machine_errors.is_full(error))

  try:
    app.run(guarded, flags_parser=_parse_flags)
  except SystemExit:  # also after absl's --help
    with _output_errors():
      sys.stdout.flush()
    raise


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
  """Ends the program without a traceback if standard output cannot be written."""
  try:
    yield
  except BrokenPipeError:
    process_setup.discard_output()
    sys.exit(128 + signal.SIGPIPE)
  except OSError as error:
    _fail(machine_errors.describe(error) or error, UserError.exit_status, discard=True)


def _check_local_inputs(arguments: Sequence[str], names: Sequence[str]) -> None:
  """Raises `UserError` for remote addresses where only local paths can be read."""
  for path in arguments:
    check_local_input(path, "")
  for name in names:
    value = flags.FLAGS[name].value
    for path in [value] if isinstance(value, str) else value or ():
      check_local_input(path, name)


def _fail(problem: object, status: int, discard: bool = False) -> NoReturn:
  """Ends the program with an error, also if standard error cannot be written.

  Args:
    problem: what is printed.
    status: exit status.
    discard: whether to discard what the standard streams hold.
  """
  try:
    print(f"error: {problem}", file=sys.stderr, flush=True)
  except OSError:
    discard = True
  if discard:
    process_setup.discard_output()
  sys.exit(status)


# What Python says of texts that are no numbers.
_NUMBER_ERRORS = {
  r"invalid literal for int\(\) with base 10: .*": "an integer",
  r"could not convert string to float: .*": "a number",
}


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; ends the program with one line if there is an error."""
  for argument in argv[1:]:
    try:
      argument.encode()
    except UnicodeEncodeError as error:
      _fail(machine_errors.describe(error), UserError.exit_status)
  try:
    _check_flag_files(argv[1:])
    with _output_errors():  # --help prints
      arguments = flags.FLAGS(argv)
    _check_finite_flags()
    return arguments
  except (flags.Error, UnicodeDecodeError) as error:
    message = _flag_problem(error).rstrip(".")
    print(f"error: {message}. --helpshort lists the flags.", file=sys.stderr)
    sys.exit(UserError.exit_status)


def _check_flag_files(arguments: Sequence[str]) -> None:
  """Raises an error for pipes and devices, which absl would read forever."""
  for argument in arguments:
    name, _, path = argument.partition("=")
    if name.lstrip("-") == "flagfile" and os.path.exists(path) and not os.path.isfile(path):
      raise flags.CantOpenFlagFileError(
        f"--flagfile={path} is a directory, a pipe or a device, and no file with one flag per line"
      )


def _check_finite_flags() -> None:
  """Raises an error for NaN and infinity, which absl's bounds accept."""
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if isinstance(flag.parser, flags.FloatParser) and flag.value is not None:
      values = flag.value if isinstance(flag.value, list) else [flag.value]
      for value in values:
        if not math.isfinite(value):
          raise flags.IllegalFlagValueError(f"flag --{name}={value}: expected a finite number")


def _flag_problem(error: Exception) -> str:
  """Returns absl's message in one line, with the missing flags in one sentence."""
  if isinstance(error, UnicodeDecodeError):
    return f"a file of --flagfile is not text with one flag per line: {error}"
  message = str(error).removeprefix("ERROR:: ")
  missing = re.findall(r"^flag (--\w+)=None: .* other than None\.$", message, re.MULTILINE)
  if missing and len(missing) == len(message.splitlines()):
    pronoun = "it" if len(missing) == 1 else "them"
    return f"expected {', '.join(missing)}; received no value of {pronoun}"
  for python, expected in _NUMBER_ERRORS.items():
    message = re.sub(python, f"expected {expected}", message)
  return " ".join(message.replace(" ?.", "?").split())


def require(*modules: str) -> None:
  """Exits with one line if optional packages are missing, or Keras has another backend.

  Call it before importing them.

  Args:
    *modules: keys of `extras.OPTIONAL`.
  """
  try:
    process_setup.check_limits()
    process_setup.check_environment()
    extras.require("this program", *modules)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_status)


def check_no_positional_args(argv: list[str]) -> None:
  """Raises `UserError` for positional arguments, most often a flag without dashes."""
  if len(argv) > 1:
    raise UserError(f"expected only flags; received {' '.join(argv[1:])!r}. See --help.")
