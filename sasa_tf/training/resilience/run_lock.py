"""One training per model directory: a lock file with the host, process and time of its owner.

The operating system locks the file, and releases it when the process ends in any way, so that a
rerun after a crash continues at once. File systems that several hosts share may not pass such locks
on. The owner therefore also touches the file every few seconds, and another host waits for this.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from sasa_tf.errors import UserError
from sasa_tf.outputs.file_locks import try_lock
from sasa_tf.outputs.path_checks import check_plain_files

LOCK_FILE = ".lock"
_TOUCH_SECONDS = 5.0
_WAIT_SECONDS = 20.0
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@contextlib.contextmanager
def run_lock(model_dir: str, *, force: bool = False) -> Iterator[None]:
  """Holds the lock of a model directory.

  Args:
    model_dir: existing directory of the run. A remote one is not locked.
    force: whether to take over the lock of another host without waiting. That of a running process
      of this host is never taken over.

  Raises:
    UserError: another training uses the directory, or the lock cannot be written.
  """
  if _REMOTE.match(model_dir):
    yield
    return
  path = pathlib.Path(model_dir, LOCK_FILE)
  descriptor = _open(path, model_dir)
  try:
    _take_over(descriptor, model_dir, force)
    with contextlib.suppress(OSError):  # a full disk; the system's lock needs no content
      os.ftruncate(descriptor, 0)
      os.pwrite(descriptor, json.dumps(_owner()).encode(), 0)
    try:
      with _touched(descriptor):
        yield
    finally:
      path.unlink(missing_ok=True)
  finally:
    os.close(descriptor)


def _open(path: pathlib.Path, model_dir: str) -> int:
  """Returns the open and locked file."""
  check_plain_files([path], "a training")
  while True:
    try:
      descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    except OSError as error:
      raise UserError(
        f"--model_dir={model_dir}: {path} cannot be written: {error.strerror}. Make it writable, "
        "or use another directory."
      ) from error
    if not try_lock(descriptor):
      owner = _read(descriptor)
      os.close(descriptor)
      raise _in_use(model_dir, owner)
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(descriptor), os.stat(path)):
        return descriptor
    os.close(descriptor)  # its owner has removed it in the meantime


def _take_over(descriptor: int, model_dir: str, force: bool) -> None:
  """Checks that the owner in the file, if any, is gone."""
  owner = _read(descriptor)
  if not owner:
    return
  if owner.get("host") == socket.gethostname():
    if _is_running(owner) and not _is_own(owner):
      raise _in_use(model_dir, owner)
  elif not force:
    print(
      f"{model_dir} was in use by {_describe(owner)}; waiting {_WAIT_SECONDS:.0f} s for a sign of "
      "it (--force does not wait)",
      file=sys.stderr,
      flush=True,
    )
    before = os.fstat(descriptor).st_mtime_ns
    time.sleep(_WAIT_SECONDS)
    if os.fstat(descriptor).st_mtime_ns != before:
      raise _in_use(model_dir, owner)


@contextlib.contextmanager
def _touched(descriptor: int) -> Iterator[None]:
  """Updates the time of the file until the end of the block."""
  ended = threading.Event()

  def touch() -> None:
    while not ended.wait(_TOUCH_SECONDS):
      with contextlib.suppress(OSError):
        os.utime(descriptor)

  thread = threading.Thread(target=touch, name="run_lock", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


def _owner() -> dict[str, Any]:
  now = datetime.datetime.now(datetime.timezone.utc)
  return {
    "host": socket.gethostname(),
    "process": os.getpid(),
    "start": _start_time(os.getpid()),
    "time": now.isoformat(" ", "seconds"),
  }


def _read(descriptor: int) -> dict[str, Any]:
  """Returns the owner in the file, {} if there is none."""
  try:
    owner = json.loads(os.pread(descriptor, 4096, 0))
  except (RecursionError, ValueError):
    return {}
  return owner if isinstance(owner, dict) else {}


def _is_running(owner: dict[str, Any]) -> bool:
  """Returns whether the process of the lock exists; a later one may have its number."""
  start = _start_time(owner.get("process"))
  return start is not None and start == owner.get("start")


def _is_own(owner: dict[str, Any]) -> bool:
  return owner.get("process") == os.getpid()


def _start_time(process: object) -> str | None:
  """Returns when a process was started, in the unit of the system; None if it does not run."""
  try:
    status = pathlib.Path("/proc", str(process), "stat").read_text()
  except (OSError, ValueError):
    return None
  return status.rpartition(")")[2].split()[19]  # the name in parentheses may have spaces


def _describe(owner: dict[str, Any]) -> str:
  if not owner:
    return "another process"
  return f"process {owner.get('process')} of host {owner.get('host')} since {owner.get('time')}"


def _in_use(model_dir: str, owner: dict[str, Any]) -> UserError:
  return UserError(
    f"--model_dir={model_dir} is in use by another training: {_describe(owner)}. Wait until it "
    "ends, end it, or use another directory."
  )
