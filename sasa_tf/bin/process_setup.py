"""What programs set up before anything else: standard streams, encoding, and memory.

Imports no TensorFlow.
"""

from __future__ import annotations

import io
import os
import resource
import select
import sys
from collections.abc import Sequence

from sasa_tf import extras
from sasa_tf.bin import xla_flags
from sasa_tf.errors import UserError

# TensorFlow alone maps more than 2 GiB; with less it aborts, or its import does not end.
MIN_ADDRESS_SPACE = 3 << 30
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
# Files of libraries, records, checkpoints and the pool of threads.
MIN_OPEN_FILES = 256


def open_standard_streams() -> None:
  """Opens closed standard streams, and prints characters that an encoding lacks as escapes.

  Otherwise the next file that is opened takes the number of the closed stream, and the messages of
  libraries are written to it.
  """
  for number, name in enumerate(("stdin", "stdout", "stderr")):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if getattr(sys, name) is None:
      setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")


def use_utf8_file_names() -> None:
  """Starts Python again in UTF-8 mode if the locale has another encoding of file names.

  TensorFlow encodes file names as UTF-8. Python does so in an ASCII locale by default, but not in
  other locales, nor with PYTHONUTF8=0. The standard streams keep their encodings.
  """
  if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
    return
  os.environ["PYTHONUTF8"] = "1"
  os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def check_limits() -> None:
  """Raises the soft limit of open files, and checks the limits of files and virtual memory.

  Raises:
    UserError: a limit is too small for TensorFlow, which would abort.
  """
  _check_file_limit()
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
    raise UserError(
      f"the limit of virtual memory is {limit >> 10} kB (ulimit -v); TensorFlow needs at least "
      f"{MIN_ADDRESS_SPACE >> 10}. Raise it with `ulimit -v {MIN_ADDRESS_SPACE >> 9}`, or remove "
      "it with `ulimit -v unlimited`."
    )


def check_environment() -> None:
  """Checks environment variables and the file with which TensorFlow or Keras cannot start.

  Raises:
    UserError: a value is invalid.
  """
  for name in _THREADS:
    value = os.environ.get(name, "")
    if value.strip().startswith("-"):
      raise UserError(
        f"the environment variable {name}={value}: expected a number of threads, or 0 for all "
        "cores. Unset it."
      )
  flags = os.environ.get("XLA_FLAGS", "").strip()
  if flags and not flags.startswith("-") and not os.path.isfile(flags):
    raise UserError(
      f"the environment variable XLA_FLAGS={flags}: expected flags such as "
      "--xla_dump_to=DIRECTORY, or an existing file with some. Correct or unset it."
    )
  xla_flags.check(os.environ)
  extras.check_keras_config()


def _check_file_limit() -> None:
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if hard == resource.RLIM_INFINITY or hard >= MIN_OPEN_FILES:
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
      resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_OPEN_FILES, hard))
    return
  raise UserError(
    f"the limit of open files is {hard} (ulimit -n); TensorFlow needs at least {MIN_OPEN_FILES}. "
    f"Raise it with `ulimit -n {MIN_OPEN_FILES}`."
  )


def is_reader_gone(streams: Sequence[io.TextIOBase | None] = ()) -> bool:
  """Returns whether standard output or standard error is a pipe that nobody reads any more."""
  poll = select.poll()
  for stream in streams or (sys.stdout, sys.stderr):
    try:
      if stream is not None:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):
      continue  # not a file
  return any(event & select.POLLERR for _, event in poll.poll(0))


def discard_output() -> None:
  """Directs the standard streams to nowhere, so that Python does not fail to write at its end."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  for number in (1, 2):
    os.dup2(nowhere, number)
  os.close(nowhere)
