"""Ends the waiting of a group of replicas when another process is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from sasa_tf.collectives.replica_group import ReplicaGroup
from sasa_tf.errors import WorkerLostError
from sasa_tf.training.step.all_reduce_mode import Processes

INTERVAL_SECONDS = 2.0


@contextlib.contextmanager
def aborted_on_loss(
  group: ReplicaGroup, processes: Processes, interval_seconds: float = INTERVAL_SECONDS
) -> Iterator[None]:
  """Aborts the group if a process is lost while the block runs.

  NCCL notices a broken connection. Where processes exchange data through the memory of a host, its
  kernel would wait for a lost one until the time limit of the group.

  A process that ends is lost too, so that the block must not run longer than all processes are
  needed.

  Args:
    group: replicas of the processes.
    processes: the processes. `find_lost` is called in a thread.
    interval_seconds: time between two calls.

  Raises:
    WorkerLostError: raised by the block. Names the lost process, also if NCCL noticed it first.
  """
  ended = threading.Event()
  lost = ""

  def watch() -> None:
    nonlocal lost
    while not lost and not ended.wait(interval_seconds):
      lost = processes.find_lost()
      if lost and not ended.is_set():
        group.abort(lost)

  threading.Thread(target=watch, name="process_watch", daemon=True).start()
  try:
    yield
  except WorkerLostError as error:
    silent = "" if lost else processes.find_silent()
    if silent:
      raise WorkerLostError(f"{error} There is no answer from {silent}.") from error
    raise
  finally:
    ended.set()
