"""Two trainings never write to one model directory."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from sasa_tf.errors import UserError
from sasa_tf.outputs import file_locks
from sasa_tf.training.resilience import run_lock as module
from sasa_tf.training.resilience.run_lock import LOCK_FILE, run_lock

HOLDER = """
import sys, time
from sasa_tf.training.resilience.run_lock import run_lock
with run_lock(sys.argv[1]):
  print("locked", flush=True)
  time.sleep(100)
"""


@contextlib.contextmanager
def holder(directory):
  """A process that holds the lock."""
  process = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True
  )
  try:
    assert process.stdout.readline() == "locked\n"
    yield process
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("force", [False, True])
def test_second_training_is_rejected_and_a_killed_one_is_not_in_the_way(tmp_path, force):
  with holder(tmp_path) as process:
    message = f"in use by another training: process {process.pid} of host .* since 20.*directory"
    with pytest.raises(UserError, match=message), run_lock(str(tmp_path), force=force):
      pass
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with run_lock(str(tmp_path)):  # without --force, as "rerun the same command" promises
      assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
  assert not list(tmp_path.iterdir())


def test_lock_is_released_after_an_error(tmp_path):
  for _ in range(2):
    with pytest.raises(KeyError), run_lock(str(tmp_path)):
      raise KeyError
  assert not list(tmp_path.iterdir())


def write_lock(directory, **owner):
  (directory / LOCK_FILE).write_text(json.dumps({"process": 1, "time": "2026-01-01", **owner}))


@pytest.mark.parametrize("alive", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_lock_of_another_host(tmp_path, monkeypatch, capsys, alive, force):
  write_lock(tmp_path, host="elsewhere")
  waited = []

  def wait(seconds):
    waited.append(seconds)
    if alive:
      os.utime(tmp_path / LOCK_FILE, ns=(1, 1))

  monkeypatch.setattr(module.time, "sleep", wait)
  expected = pytest.raises(UserError, match="process 1 of host elsewhere since 2026-01-01")
  with (
    expected if alive and not force else contextlib.nullcontext(),
    run_lock(str(tmp_path), force=force),
  ):
    pass
  assert bool(waited) == (not force)
  assert ("--force does not wait" in capsys.readouterr().err) == (not force)


def test_file_systems_without_locks_compare_processes(tmp_path, monkeypatch):
  def unsupported(*arguments):
    raise OSError("not supported")

  monkeypatch.setattr(file_locks.fcntl, "flock", unsupported)
  host, start = module.socket.gethostname(), module._start_time(1)
  for process, started, running in ((1, start, True), (1, "other", False), (2**22 + 1, "1", False)):
    write_lock(tmp_path, host=host, process=process, start=started)
    expected = pytest.raises(UserError, match="in use") if running else contextlib.nullcontext()
    with expected, run_lock(str(tmp_path)):
      pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{", b"{}", b"[" * 4096])
def test_invalid_lock_file_is_replaced(tmp_path, content, monkeypatch):
  monkeypatch.setattr(module, "_WAIT_SECONDS", 0.0)
  (tmp_path / LOCK_FILE).write_bytes(content)
  with run_lock(str(tmp_path)):
    pass
  assert not list(tmp_path.iterdir())


def test_pipes_are_no_locks(tmp_path):
  os.mkfifo(tmp_path / LOCK_FILE)
  expected = pytest.raises(UserError, match=rf"{LOCK_FILE} is a pipe or a device; expected a file")
  with expected, run_lock(str(tmp_path)):
    pass


def test_locks_that_are_links_are_named_and_not_followed(tmp_path):
  (tmp_path / "outside").write_text("kept")
  (tmp_path / LOCK_FILE).symlink_to(tmp_path / "outside")
  expected = pytest.raises(UserError, match=rf"{LOCK_FILE} is a link to .*outside.*Remove the link")
  with expected, run_lock(str(tmp_path)):
    pass
  assert (tmp_path / "outside").read_text() == "kept"


def test_owner_shows_that_it_is_alive(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_TOUCH_SECONDS", 0.01)
  with run_lock(str(tmp_path)):
    os.utime(tmp_path / LOCK_FILE, ns=(1, 1))
    for _ in range(500):
      if (tmp_path / LOCK_FILE).stat().st_mtime_ns != 1:
        break
      module.time.sleep(0.01)
    assert (tmp_path / LOCK_FILE).stat().st_mtime_ns != 1


def test_remote_directories_are_not_locked():
  with run_lock("gs://bucket/run"):
    pass
