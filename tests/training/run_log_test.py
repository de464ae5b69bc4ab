"""The log that a training writes."""

import itertools

import numpy as np

from sasa_tf.outputs.run_log import read_run_log
from sasa_tf.training.run_log import RunLog

ARGUMENTS = {"train_steps": 4, "batch_size": 6, "parameters": 5}


def test_events_are_written_and_read(tmp_path):
  step = [0]
  log = RunLog(str(tmp_path), lambda: step[0], clock=itertools.count(100.0).__next__)
  log.begin(**ARGUMENTS)
  step[0] = 2
  log.on_train({"loss": np.float32(2), "table": np.zeros([2, 2])})
  with (tmp_path / "run_log.jsonl").open("a") as file:
    file.write('{"event": "tr')  # a killed process

  log = RunLog(str(tmp_path), lambda: step[0], clock=itertools.count(5.0).__next__)
  log.begin(**ARGUMENTS)
  step[0] = 4
  log.on_train({"loss": np.float32(1)})
  assert not log.is_evaluated()
  log.on_evaluate({"accuracy": np.float32(0.5)})
  assert log.is_evaluated()
  log.end()

  found = read_run_log(tmp_path)
  assert len(found.processes) == 2 and found.is_finished and found.last_step == 4
  assert [e["metrics"] for e in found.series("train")] == [{"loss": 2.0}, {"loss": 1.0}]
  assert [e["step"] for e in found.series("evaluation")] == [4]
  assert found.begin["parameters"] == 5 and found.begin["versions"]["tensorflow"]
  assert found.peak_memory["bytes"] > 0


def test_processes_that_do_not_save_write_nothing(tmp_path):
  log = RunLog(None, lambda: 0)
  log.begin(**ARGUMENTS)
  log.on_train({})
  log.end()
  assert not list(tmp_path.iterdir())
