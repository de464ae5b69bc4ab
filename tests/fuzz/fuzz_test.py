"""`make fuzz` runs: some problems of each kind, a failure, a crash and a hang."""

import types

import pytest

from sasa_tf import registry_imports  # noqa: F401
from tests.fuzz import __main__ as program
from tests.fuzz import faulty_work, workers


@pytest.mark.parametrize("kind", workers.KINDS)
def test_problems_pass_and_repeat(kind):
  for seed in range(4):
    assert workers.run_problem(kind, seed) is None


def test_failures_are_reported_with_the_seed(monkeypatch):
  def check(seed, directory):
    raise AssertionError(f"wrong for {seed}")

  monkeypatch.setattr(
    workers.importlib, "import_module", lambda _: types.SimpleNamespace(check=check)
  )
  assert workers.run_problem("records", 7).startswith("AssertionError: wrong for 7 (")


def test_crashes_and_hangs_are_failures(monkeypatch):
  monkeypatch.setattr(workers, "_work", faulty_work.crash_or_hang)
  monkeypatch.setattr(workers, "PROBLEM_SECONDS", 0.5)
  worker = workers.Worker("records")
  assert worker.run(1) == "the process ended with status -6"
  assert worker.run(2).startswith("no end within")


def test_every_failure_is_counted(monkeypatch):
  class Worker:
    def __init__(self, kind):
      self.kind = kind

    def run(self, seed):
      return "wrong" if seed % 2 else None

    def stop(self):
      pass

  monkeypatch.setattr(workers, "Worker", Worker)
  printed = []
  report = lambda line, flush: printed.append(line)  # noqa: E731
  tried, failed = program.fuzz("records", 0.001, seed=1, report=report)
  assert 0 < len(failed) < tried and len(printed) == len(failed)
  assert f"--kind=records --problem={failed[0]}" in printed[0]
