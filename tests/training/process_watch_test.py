"""A process that waits for one that is lost is ended."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sasa_tf.errors import WorkerLostError
from sasa_tf.training.step.all_reduce_mode import Processes
from sasa_tf.training.step.process_watch import aborted_on_loss
from tests.collectives.replica_threads import needs_library
from tests.training.local_cluster import free_addresses


class Group:
  """Records why it is aborted."""

  def __init__(self):
    self.reasons = []
    self.aborted = threading.Event()

  def abort(self, reason):
    self.reasons.append(reason)
    self.aborted.set()


def processes(find_lost=str, find_silent=str):
  return Processes(0, list, find_lost, find_silent)


def test_loss_aborts_the_group_once():
  group, answers = Group(), iter(["", "", "lost b:2"])
  with aborted_on_loss(group, processes(lambda: next(answers)), interval_seconds=0.01):
    assert group.aborted.wait(20)
    time.sleep(0.1)
  assert group.reasons == ["lost b:2"]


@pytest.mark.parametrize(
  ("silent", "message"),
  [("", "NCCL: closed."), ("b:2", "NCCL: closed. There is no answer from b:2.")],
)
def test_error_of_nccl_gets_the_name_of_a_process_that_does_not_answer(silent, message):
  with (
    pytest.raises(WorkerLostError) as raised,
    aborted_on_loss(Group(), processes(find_silent=lambda: silent)),
  ):
    raise WorkerLostError("NCCL: closed.")
  assert str(raised.value) == message


def test_name_is_in_the_message_once():
  group = Group()
  with (
    pytest.raises(WorkerLostError, match=r"^lost b:2$"),
    aborted_on_loss(group, processes(lambda: "lost b:2", pytest.fail), interval_seconds=0.01),
  ):
    assert group.aborted.wait(20)
    raise WorkerLostError(group.reasons[0])


def test_loss_after_the_block_is_ignored():
  group, called, proceed = Group(), threading.Event(), threading.Event()

  def find_lost():
    called.set()
    proceed.wait(20)
    return "lost b:2"

  with aborted_on_loss(group, processes(find_lost), interval_seconds=0.01):
    assert called.wait(20)
    (thread,) = (one for one in threading.enumerate() if one.name == "process_watch")
    assert thread.daemon
  proceed.set()
  thread.join(20)
  assert not thread.is_alive() and group.reasons == []


def test_short_block_asks_nothing():
  with aborted_on_loss(Group(), processes(pytest.fail), interval_seconds=60):
    pass


def start(addresses, index, log):
  config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
  return subprocess.Popen(
    [sys.executable, "-m", "tests.training.waiting_process_program"],
    env={**os.environ, "TF_CONFIG": json.dumps(config), "TF_NUM_INTRAOP_THREADS": "1"},
    stdout=open(log, "w"),
    stderr=subprocess.STDOUT,
  )


# Loss of the process with the coordination service, and of another one; killed, and hanging.
@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("victim", [0, 2])
def test_waiting_processes_end_within_a_minute(tmp_path, victim, number):
  addresses, logs = free_addresses(3), [tmp_path / f"{index}.log" for index in range(3)]
  processes = [start(addresses, index, log) for index, log in enumerate(logs)]
  try:
    end = time.monotonic() + 300
    while not all("waits\n" in log.read_text() for log in logs):
      assert time.monotonic() < end and not any(map(subprocess.Popen.poll, processes))
      time.sleep(0.1)
    time.sleep(3)
    begin = time.monotonic()
    processes[victim].send_signal(number)
    others = [index for index in range(3) if index != victim]
    statuses = [processes[index].wait(60) for index in others]
    seconds = time.monotonic() - begin
  finally:
    for process in processes:
      process.kill()
      process.wait()
  printed = [logs[index].read_text() for index in others]
  assert statuses == [WorkerLostError.exit_status] * 2, "\n".join(printed)
  assert seconds < 60
  name = f"lost the process at {addresses[victim]} (worker {victim}) (Collective ops is aborted by"
  for text in printed:
    assert f"error: the replicas cannot train together any more: {name}" in text
    assert "Traceback" not in text
  print(f"{seconds:.1f} s")
