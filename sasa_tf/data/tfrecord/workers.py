"""Runs tasks in spawned worker processes, which report progress and die with their parent."""

import collections
import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.signals import ignored_interrupts
from sasa_tf.data.tfrecord.tensorflow_process import prepare_for_conversion

# A worker imports TensorFlow first, about as long as converting this many small images takes.
_ITEMS_WORTH_A_PROCESS = 5000

Work = Callable[[Any, Callable[[Any], None]], Any]


def automatic_num_processes(num_items: int) -> int:
  """Number of processes that pay off for so many items, at most the usable cores."""
  try:
    cores = len(os.sched_getaffinity(0))
  except AttributeError:  # macOS
    cores = os.cpu_count() or 1
  return max(1, min(cores, num_items // _ITEMS_WORTH_A_PROCESS))


def run_tasks(
  work: Work, tasks: Sequence[Any], num_processes: int, on_progress: Callable[[Any], None]
) -> list[Any]:
  """Calls `work(task, report)` for every task; each call runs in one process.

  With one process the calls run in this one. Else work, tasks and results must be picklable.
  On any exception, Ctrl-C among them, the workers are killed before it is passed on.

  Args:
    work: what to do; whatever it hands to `report` reaches on_progress, here.
    tasks: one argument a call.
    num_processes: how many processes to use, at most one a task.
    on_progress: receives the reports, in this process.

  Returns:
    The results, in the order of the tasks.

  Raises:
    DatasetError: raised by a call, or a worker was killed.
    RuntimeError: a call raised anything else; holds the worker's traceback.
  """
  num_processes = min(num_processes, len(tasks))
  if num_processes <= 1:
    return [work(task, on_progress) for task in tasks]
  workers: list[_Worker] = []
  try:
    with ignored_interrupts():
      for _ in range(num_processes):
        workers.append(_Worker(work))
    return _share_out(workers, tasks, on_progress)
  finally:
    for worker in workers:
      worker.kill()


class _Worker:
  """One spawned process and this process's end of the pipe to it."""

  def __init__(self, work: Work):
    context = multiprocessing.get_context("spawn")
    self._connection, far = context.Pipe()
    self._process = context.Process(target=_serve, args=(far, work), daemon=True)
    self._process.start()
    far.close()  # With the far end open in the worker alone, its death shows here.

  def fileno(self) -> int:
    """Makes workers waitable."""
    return self._connection.fileno()

  def send(self, message: Any) -> None:
    try:
      self._connection.send(message)
    except ConnectionError as error:
      raise self._death() from error

  def receive(self) -> tuple[str, Any]:
    try:
      return self._connection.recv()
    except (EOFError, ConnectionError) as error:
      raise self._death() from error

  def kill(self) -> None:
    self._process.kill()
    self._process.join()
    self._connection.close()

  def _death(self) -> DatasetError:
    self._process.join()
    return DatasetError(
      f"a worker process ended unexpectedly (exit code {self._process.exitcode}; -9 is often a "
      "lack of memory). Try fewer --num_processes."
    )


def _share_out(workers: Sequence[_Worker], tasks, on_progress) -> list[Any]:
  waiting = collections.deque(enumerate(tasks))
  results: list[Any] = [None] * len(tasks)
  remaining = len(tasks)
  for worker in workers:
    worker.send(waiting.popleft())
  while remaining:
    for worker in connection.wait(workers):
      kind, content = worker.receive()
      if kind == "progress":
        on_progress(content)
      elif kind == "result":
        number, results[number] = content
        remaining -= 1
        if waiting:
          worker.send(waiting.popleft())
      elif kind == "fault":
        raise DatasetError(content)
      else:
        raise RuntimeError(f"a worker process failed:\n{content}")
  return results


def _serve(far: connection.Connection, work: Work) -> None:
  """The life of a worker process."""
  prepare_for_conversion()
  try:
    while True:
      number, task = far.recv()
      result = work(task, lambda content: far.send(("progress", content)))
      far.send(("result", (number, result)))
  except (EOFError, ConnectionError):
    return  # The parent is gone: leave the task and end in silence.
  except DatasetError as error:
    far.send(("fault", str(error)))
  except Exception:
    far.send(("crash", traceback.format_exc()))
