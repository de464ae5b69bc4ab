"""The log of a training, over several processes."""

import json
import math
import os

import pytest

from sasa_tf.outputs.run_log import read_run_log


def event(kind, step, seconds, **values):
  return json.dumps({"event": kind, "step": step, "seconds": seconds, **values})


def test_interrupted_training(tmp_path):
  """The first process is killed at step 30 and resumes at 20."""
  lines = [
    event("begin", 0, 0.0, batch_size=4, train_steps=40),
    event("train", 10, 50.0),  # compiles
    event("train", 20, 60.0, peak_memory={"kind": "device", "bytes": 7}),
    event("evaluation", 20, 65.0, metrics={"accuracy": 0.5}),
    event("train", 30, 75.0, peak_memory={"kind": "device", "bytes": 9}),
    '{"event": "tra',
    event("begin", 20, 0.0, batch_size=4, train_steps=40),
    event("train", 30, 40.0),
    event("train", 40, 50.0, peak_memory={"kind": "device", "bytes": 8}),
    event("evaluation", 40, 55.0, metrics={"accuracy": 0.75}),
    event("end", 40, 56.0),
  ]
  (tmp_path / "run_log.jsonl").write_text("\n".join(lines))
  log = read_run_log(tmp_path)
  assert len(log.processes) == 2 and log.is_finished and log.last_step == 40
  assert log.seconds == 65.0 + 56.0
  assert [(e["step"], e["seconds"]) for e in log.series("evaluation")] == [(20, 65.0), (40, 120.0)]
  assert [e["step"] for e in log.series("train")] == [10, 20, 30, 40]
  assert log.images_per_second == pytest.approx(4.0)
  assert log.peak_memory == {"kind": "device", "bytes": 8}


def test_missing_and_empty_logs(tmp_path):
  for log in (read_run_log(tmp_path), read_run_log(tmp_path / "missing")):
    assert not log.is_finished and log.last_step == 0 and log.seconds == 0
    assert log.images_per_second is None and log.peak_memory is None and log.begin == {}


@pytest.mark.parametrize(
  "line",
  [
    event("train", "10", 1.0),
    event("train", 10, None),
    event("train", 10, float("inf")),
    event("train", True, 1.0),
    event("train", 10, 1.0, metrics=[1]),
    event("train", 10, 1.0, metrics={"loss": "high"}),
    event("train", 10, 1.0, peak_memory={"bytes": 3}),
    event("train", 10, 1.0, parameters="many"),
    event("train", -1, 1.0),
    event("train", 10, 1e300),
    event("train", 2**60, 1.0),
    event("train", 10, 1.0, metrics={"loss": 1e300}),
    event("train", 10, 1.0, batch_size=-1),
    event(3, 10, 1.0),
    '{"event": "train", "step": ' + "9" * 400 + ', "seconds": 1.0}',
    "[" * 100_000,
  ],
)
def test_events_with_values_of_other_types_are_skipped(tmp_path, line):
  valid = event("begin", 0, 0.0, batch_size=4), event("train", 5, 2.0, metrics={"loss": math.nan})
  (tmp_path / "run_log.jsonl").write_text("\n".join((*valid, line)))
  log = read_run_log(tmp_path)
  assert (log.last_step, log.seconds, len(log.processes[0])) == (5, 2.0, 2)


def test_pipes_are_no_logs(tmp_path):
  os.mkfifo(tmp_path / "run_log.jsonl")
  assert not read_run_log(tmp_path).processes
