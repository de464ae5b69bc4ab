"""Killed and preempted trainings; `kill_test_program` is the long version."""

import signal

import pytest

from sasa_tf.errors import PreemptedError
from tests.training import kill_test_program, tiny_run


@pytest.mark.slow
def test_resume_after_three_kills(tmp_path):
  lines = kill_test_program.kill_and_resume(tmp_path, kills=3, seed=1)
  assert len(lines) == 4


@pytest.mark.slow
def test_sigterm_exit_status_and_resume(tmp_path):
  data = tiny_run.write_data(tmp_path / "data")
  run = kill_test_program.Training(data, tmp_path / "run", 1_000_000, asynchronous=True)
  run.wait_for(lambda: run.last_step is not None)
  run.process.send_signal(signal.SIGTERM)
  assert run.process.wait(timeout=100) == PreemptedError.exit_status == 75
  run.join()
  assert f"ended by SIGTERM after step {run.last_step}, which is saved" in "".join(run.printed)
  resumed = kill_test_program.Training(data, tmp_path / "run", run.last_step + 4, asynchronous=True)
  assert resumed.process.wait(timeout=300) == 0
  resumed.join()
  assert (resumed.first_step, resumed.last_step) == (run.last_step, run.last_step + 4)
