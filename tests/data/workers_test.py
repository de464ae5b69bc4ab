import os
import signal
import sys

import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord import workers


def _square(task, report):
  report((os.getpid(), task))
  return task**2


def _fail(task, report):
  if task == "error":
    raise DatasetError("message of the worker")
  if task == "crash":
    raise KeyError("unexpected")
  os.kill(os.getpid(), signal.SIGKILL)


def _environment(task, report):
  return os.environ.get(task), "tensorflow" in sys.modules


def test_one_process_runs_the_tasks_in_this_process():
  reports = []
  assert workers.run_tasks(_square, [3, 1, 2], 1, reports.append) == [9, 1, 4]
  assert reports == [(os.getpid(), 3), (os.getpid(), 1), (os.getpid(), 2)]


def test_results_of_several_processes_are_in_order():
  reports = []
  assert workers.run_tasks(_square, range(40), 3, reports.append) == [i**2 for i in range(40)]
  processes, tasks = zip(*reports, strict=True)
  assert sorted(tasks) == list(range(40))
  assert os.getpid() not in processes
  assert len(set(processes)) <= 3


@pytest.mark.parametrize(
  ("task", "error", "message"),
  [
    ("error", DatasetError, "^message of the worker$"),
    ("crash", RuntimeError, "KeyError: 'unexpected'"),
    ("kill", DatasetError, "exit code -9"),
  ],
)
def test_failure_of_a_worker_raises(task, error, message):
  with pytest.raises(error, match=message):
    workers.run_tasks(_fail, [task, task], 2, lambda report: None)


def test_workers_hide_gpus_and_start_without_tensorflow():
  results = workers.run_tasks(_environment, ["CUDA_VISIBLE_DEVICES"] * 2, 2, lambda report: None)
  assert results == [("-1", False)] * 2


def test_automatic_number_of_processes(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6), raising=False)
  assert [workers.automatic_num_processes(n) for n in (0, 100, 10_000, 10**6)] == [1, 1, 2, 6]
