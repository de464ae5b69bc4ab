"""Child processes whose failures are reported in one paragraph."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from sasa_tf.errors import UserError

_LAST_LINES = 4
_MAX_CHARACTERS = 600


def script_command(
  script: str | os.PathLike, *arguments: str | os.PathLike
) -> list[str | os.PathLike]:
  """Returns a command that runs a Python script with the packages that this process imports from.

  Python's isolated mode keeps the script's directory off `sys.path`, because its files may have the
  names of packages. It also ignores PYTHONPATH and the packages of the user, which are passed on.
  The working directory is not.
  """
  working_directory = os.path.realpath(os.curdir)
  paths = [path for path in sys.path if path and os.path.realpath(path) != working_directory]
  program = (
    f"import runpy, sys; sys.path[:] = {paths!r}; del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
  )
  return [sys.executable, "-I", "-c", program, script, *arguments]


def run_child_process(
  command: Sequence[str | os.PathLike],
  *,
  failure: str,
  time_limit_seconds: float,
  environment: Mapping[str, str] | None = None,
) -> None:
  """Runs a command in an empty directory, without input, and hides what it prints.

  Args:
    command: program and arguments; paths must be absolute.
    failure: what cannot be done if it fails, for the message.
    time_limit_seconds: after which the process is killed.
    environment: variables to add.

  Raises:
    UserError: the process fails, crashes or exceeds the time limit. The message ends with its last
      lines.
  """
  with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as log:
    try:
      status = subprocess.run(
        [os.fspath(part) for part in command],
        cwd=name,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        timeout=time_limit_seconds,
      ).returncode
      ending = _ending(status) if status else ""
    except subprocess.TimeoutExpired:
      ending = f"took more than the limit of {time_limit_seconds:g} seconds"
    if ending:
      log.seek(0)
      raise UserError(f"{failure}: its process {ending}. {_last_lines(log.read())}")


def _ending(status: int) -> str:
  if status >= 0:
    return f"ended with status {status}"
  ending = f"was killed by {signal.Signals(-status).name}"
  if status == -signal.SIGKILL:
    ending += ", probably because memory ran out"
  return ending


def _last_lines(log: bytes) -> str:
  lines = [line.strip() for line in log.decode(errors="replace").splitlines() if line.strip()]
  if not lines:
    return "It printed nothing."
  return f"Its last lines: {' | '.join(lines[-_LAST_LINES:])[-_MAX_CHARACTERS:]}"
