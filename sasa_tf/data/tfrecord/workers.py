"""Runs tasks in spawned worker processes that report progress and exit with their parent."""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

from sasa_tf.data.errors import DatasetError

# Starting a worker, which imports TensorFlow, takes as long as converting this many small images.
_MIN_ITEMS_PER_PROCESS = 5000

Work = Callable[[Any, Callable[[Any], None]], Any]


def automatic_num_processes(num_items: int) -> int:
  """Returns the number of processes that is fastest for this many items."""
  try:
    cores = len(os.sched_getaffinity(0))
  except AttributeError:  # macOS
    cores = os.cpu_count() or 1
  return max(1, min(cores, num_items // _MIN_ITEMS_PER_PROCESS))


def configure_tensorflow() -> None:
  """Disables TensorFlow's log messages and GPUs; call before its first import.

  Images are decoded on the CPU. Each worker would otherwise reserve the memory of every GPU.
  """
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
  os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@contextlib.contextmanager
def ignored_sigint() -> Iterator[None]:
  """Ignores SIGINT for a short critical section; processes started inside ignore it permanently.

  A signal mask is insufficient, because TensorFlow's threads would still receive the signal.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # Python runs signal handlers only in the main thread.
    return
  handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, handler)


def run_tasks(
  work: Work, tasks: Sequence[Any], num_processes: int, on_progress: Callable[[Any], None]
) -> list[Any]:
  """Calls `work(task, report)` for every task, in worker processes or in this process.

  With several processes, `work`, the tasks and the results must be picklable. On any exception,
  including KeyboardInterrupt, the workers are killed before it propagates.

  Args:
    work: the function to call. What it passes to `report` is passed to `on_progress`.
    tasks: the first argument of each call.
    num_processes: number of processes, at most one per task; 1 runs the calls in this process.
    on_progress: receives the reports, in this process.

  Returns:
    The results in the order of the tasks.

  Raises:
    DatasetError: if a call raised it, or a worker was killed.
    RuntimeError: if a call raised another exception; contains the worker's traceback.
  """
  num_processes = min(num_processes, len(tasks))
  if num_processes <= 1:
    return [work(task, on_progress) for task in tasks]
  workers: list[_Worker] = []
  try:
    with ignored_sigint():
      for _ in range(num_processes):
        workers.append(_Worker(work))
    return _dispatch(workers, tasks, on_progress)
  finally:
    for worker in workers:
      worker.kill()


class _Worker:
  """A spawned process and the parent's end of the pipe to it."""

  def __init__(self, work: Work):
    context = multiprocessing.get_context("spawn")
    self._connection, child_connection = context.Pipe()
    self._process = context.Process(target=_serve, args=(child_connection, work), daemon=True)
    self._process.start()
    # Only the worker holds the other end, so that reading fails when the worker exits.
    child_connection.close()

  def fileno(self) -> int:
    """Returns the pipe's file descriptor, for `connection.wait`."""
    return self._connection.fileno()

  def send(self, message: Any) -> None:
    try:
      self._connection.send(message)
    except ConnectionError as error:
      raise self._exit_error() from error

  def receive(self) -> tuple[str, Any]:
    try:
      return self._connection.recv()
    except (EOFError, ConnectionError) as error:
      raise self._exit_error() from error

  def kill(self) -> None:
    self._process.kill()
    self._process.join()
    self._connection.close()

  def _exit_error(self) -> DatasetError:
    self._process.join()
    return DatasetError(
      f"a worker process exited unexpectedly (exit code {self._process.exitcode}; -9 often means "
      "out of memory). Reduce --num_processes."
    )


def _dispatch(workers: Sequence[_Worker], tasks, on_progress) -> list[Any]:
  """Sends each idle worker the next task until all results have arrived."""
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
        index, results[index] = content
        remaining -= 1
        if waiting:
          worker.send(waiting.popleft())
      elif kind == "error":
        raise DatasetError(content)
      else:
        raise RuntimeError(f"a worker process failed:\n{content}")
  return results


def _serve(parent: connection.Connection, work: Work) -> None:
  """Main function of a worker process."""
  configure_tensorflow()
  try:
    while True:
      index, task = parent.recv()
      result = work(task, lambda content: parent.send(("progress", content)))
      parent.send(("result", (index, result)))
  except (EOFError, ConnectionError):
    return  # The parent has exited.
  except DatasetError as error:
    parent.send(("error", str(error)))
  except Exception:
    parent.send(("crash", traceback.format_exc()))
