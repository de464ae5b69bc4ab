"""Runs random problems in a process of their own, which may crash or hang."""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import tempfile
import time
import traceback

KINDS = ("configuration", "records", "operation")
START_SECONDS = 300
# No problem may take longer.
PROBLEM_SECONDS = 60


def run_problem(kind: str, seed: int) -> str | None:
  """Runs one problem; returns what went wrong, or None."""
  check = importlib.import_module(f"tests.fuzz.{kind}").check
  with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(io.StringIO()):
    try:
      check(seed, directory)
    except Exception as error:
      place = traceback.extract_tb(error.__traceback__)[-1]
      return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
  return None


def _work(kind, connection):
  import tensorflow as tf
  from absl import logging

  from sasa_tf import registry_imports  # noqa: F401

  logging.set_verbosity(logging.ERROR)
  tf.get_logger().setLevel("ERROR")
  importlib.import_module(f"tests.fuzz.{kind}")
  connection.send(None)
  while True:
    connection.send(run_problem(kind, connection.recv()))


class Worker:
  """A process that runs problems of one kind; it is replaced after a crash or a hang."""

  def __init__(self, kind: str):
    self.kind = kind
    self._process = None
    self._start()

  def run(self, seed: int) -> str | None:
    """Runs one problem; returns what went wrong, or None."""
    if self._process is None:
      self._start()
    self._connection.send(seed)
    start = time.monotonic()
    try:
      if self._connection.poll(PROBLEM_SECONDS):
        return self._connection.recv()
      failure = f"no end within {time.monotonic() - start:.0f} s"
    except (EOFError, ConnectionError):
      self._process.join()
      failure = f"the process ended with status {self._process.exitcode}"
    self.stop()
    return failure

  def _start(self):
    context = multiprocessing.get_context("spawn")
    self._connection, other = context.Pipe()
    self._process = context.Process(target=_work, args=(self.kind, other), daemon=True)
    self._process.start()
    other.close()
    if not self._connection.poll(START_SECONDS):
      self.stop()
      raise RuntimeError(f"the process for {self.kind} did not start")
    self._connection.recv()

  def stop(self):
    """Ends the process."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._process = None
