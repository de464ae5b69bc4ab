import os
import signal
import sys

import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord import workers


def _square(task, report):
  report((os.getpid(), task))
  return task**2


def _leave(task, report):
  if task == "fault":
    raise DatasetError("the worker's own words")
  if task == "crash":
    raise KeyError("not foreseen")
  os.kill(os.getpid(), signal.SIGKILL)


def _environment(task, report):
  return os.environ.get(task), "tensorflow" in sys.modules


def test_one_process_is_this_one():
  reports = []
  assert workers.run_tasks(_square, [3, 1, 2], 1, reports.append) == [9, 1, 4]
  assert reports == [(os.getpid(), 3), (os.getpid(), 1), (os.getpid(), 2)]


def test_several_processes_keep_the_order_of_the_results():
  reports = []
  assert workers.run_tasks(_square, range(40), 3, reports.append) == [i**2 for i in range(40)]
  processes, tasks = zip(*reports, strict=True)
  assert sorted(tasks) == list(range(40))
  assert os.getpid() not in processes
  assert len(set(processes)) <= 3


@pytest.mark.parametrize(
  ("task", "error", "words"),
  [
    ("fault", DatasetError, "^the worker's own words$"),
    ("crash", RuntimeError, "KeyError: 'not foreseen'"),
    ("kill", DatasetError, "exit code -9"),
  ],
)
def test_a_workers_end_is_this_ones(task, error, words):
  with pytest.raises(error, match=words):
    workers.run_tasks(_leave, [task, task], 2, lambda report: None)


def test_workers_see_no_gpu_and_start_without_tensorflow():
  results = workers.run_tasks(_environment, ["CUDA_VISIBLE_DEVICES"] * 2, 2, lambda report: None)
  assert results == [("-1", False)] * 2


def test_few_items_are_worth_one_process_and_many_at_most_the_cores(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6), raising=False)
  assert [workers.automatic_num_processes(n) for n in (0, 100, 10_000, 10**6)] == [1, 1, 2, 6]
