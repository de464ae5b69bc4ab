"""Trainings that are killed, and asked to end; the long version is `kill_test_program`."""

import signal

import pytest

from sasa_tf.errors import PreemptedError
from tests.training import kill_test_program, tiny_run


@pytest.mark.slow
def test_killed_three_times(tmp_path):
  lines = kill_test_program.kill_and_resume(tmp_path, kills=3, seed=1)
  assert len(lines) == 4


@pytest.mark.slow
def test_sigterm_has_a_status_of_its_own_and_loses_nothing(tmp_path):
  data = tiny_run.write_data(tmp_path / "data")
  run = kill_test_program.Training(data, tmp_path / "run", 1_000_000, asynchronous=True)
  run.wait_for(lambda: run.reached is not None)
  run.process.send_signal(signal.SIGTERM)
  assert run.process.wait(timeout=100) == PreemptedError.exit_status == 75
  run.join()
  assert f"ended by SIGTERM after step {run.reached}, which is saved" in "".join(run.printed)
  again = kill_test_program.Training(data, tmp_path / "run", run.reached + 4, asynchronous=True)
  assert again.process.wait(timeout=300) == 0
  again.join()
  assert (again.begun, again.reached) == (run.reached, run.reached + 4)
