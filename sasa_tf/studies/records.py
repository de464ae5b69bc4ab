"""Results of runs: JSON lines, one for each run that finished or failed."""

from __future__ import annotations

import datetime
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from sasa_tf.errors import UserError
from sasa_tf.outputs import provenance
from sasa_tf.outputs.json_lines import append_json_lines, read_lines
from sasa_tf.outputs.json_types import Count, Finite, Metric, conforms
from sasa_tf.outputs.run_log import PeakMemory, RunLogSummary
from sasa_tf.studies.runs import Cost, Run

FINISHED, FAILED = "finished", "failed"


class _Case(TypedDict):
  study: str
  row: str
  seed: int


class _Evaluation(TypedDict):
  step: Count
  seconds: Finite
  metrics: dict[str, Metric]


class _Target(TypedDict):
  value: Finite
  seconds: Finite | None
  step: Count | None


class _Report(TypedDict):
  position: int
  baseline: str
  paper: str | None
  compare_with: str | None
  expect: Literal["higher", "lower", "not_lower"] | None


class _Required(TypedDict):
  case: _Case
  status: Literal["finished", "failed"]
  error: str | None
  metric: str
  value: Metric | None
  evaluations: list[_Evaluation]
  step: Count
  train_steps: Count | None
  batch_size: Count | None
  seconds: Finite
  target: _Target | None
  images_per_second: Finite | None
  peak_memory: PeakMemory | None
  parameters: Count | None
  flops: Cost | None
  device: str
  processes_per_gpu: int
  versions: dict[str, str | None] | None
  commit: str | None
  timestamp: str
  report: _Report


class Record(_Required, total=False):
  """The keys of a result that are read again; see `make_record`."""

  digest: str


def make_record(
  run: Run,
  *,
  error: str | None,
  cost: Cost | None,
  device: str,
  processes_per_gpu: int,
  position: int,
) -> dict[str, Any]:
  """Returns the result of a run.

  Args:
    run: that ended.
    error: why it failed, or None.
    cost: FLOPs of the row's model, from profile_model; None if they are unknown.
    device: that the run was scheduled on.
    processes_per_gpu: number of runs on a GPU at a time.
    position: of the row in the study, for the order of the report.
  """
  log, study, row = run.read_log(), run.study, run.row
  begin = log.begin
  return {
    "case": run.case(),
    "status": FINISHED if error is None else FAILED,
    "error": error,
    "metric": study.metric,
    "value": _last_value(log, study.metric),
    "evaluations": log.series("evaluation"),
    "training": _thinned(log.series("train")),
    "step": log.last_step,
    "train_steps": begin.get("train_steps"),
    "batch_size": begin.get("batch_size"),
    "processes": len(log.processes),
    "seconds": round(log.seconds, 1),
    "target": _time_to_target(log, study.metric, study.target),
    "images_per_second": log.images_per_second,
    "peak_memory": log.peak_memory,
    "parameters": begin.get("parameters"),
    "flops": cost,
    "device": begin.get("device", device),
    "processes_per_gpu": processes_per_gpu,
    "versions": begin.get("versions"),
    "commit": provenance.commit(),
    "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    "settings": run.settings(),
    "digest": run.digest(),
    "report": {
      "position": position,
      "baseline": study.baseline,
      "paper": row.paper,
      "compare_with": row.compare_with,
      "expect": row.expect,
    },
  }


def _last_value(log: RunLogSummary, metric: str) -> float | None:
  values = [event["metrics"].get(metric) for event in log.series("evaluation")]
  return values[-1] if values else None


def _time_to_target(log: RunLogSummary, metric: str, target: float | None) -> dict[str, Any] | None:
  """Returns the seconds and the step of the first evaluation that reached the target."""
  if target is None:
    return None
  reached: dict[str, Any] = {"value": target, "seconds": None, "step": None}
  for event in log.series("evaluation"):
    if event["metrics"].get(metric, float("-inf")) >= target:
      return {**reached, "seconds": event["seconds"], "step": event["step"]}
  return reached


def _thinned(events: list[dict[str, Any]], count: int = 100) -> list[dict[str, Any]]:
  """Returns at most about `count` events, the last one included."""
  stride = max(1, -(-len(events) // count))
  return events[::-1][::stride][::-1]


def append(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Appends a result to a file.

  Raises:
    UserError: the file cannot be written, or holds something else.
  """
  append_json_lines(path, [json.dumps(record)])


def read_results(paths: Iterable[str | pathlib.Path]) -> list[dict[str, Any]]:
  """Returns the results in files, the last one of each run. A finished one replaces a failed one.

  Lines that a killed process did not finish are skipped.

  Raises:
    UserError: a file cannot be read, or holds no results.
  """
  found: dict[tuple[Any, ...], dict[str, Any]] = {}
  for path in paths:
    try:
      lines = read_lines(path)
    except OSError as error:
      raise UserError(f"the results {str(path)!r} cannot be read: {error.strerror}.") from error
    records = [record for record in map(_parse, lines) if record is not None]
    if not records:
      raise UserError(f"{path} contains no results of a study. Run one with --study and --output.")
    for record in records:
      key = tuple(record["case"][name] for name in ("study", "row", "seed"))
      if key not in found or record["status"] == FINISHED or found[key]["status"] == FAILED:
        found[key] = record
  return list(found.values())


def _parse(line: str) -> dict[str, Any] | None:
  try:
    record = json.loads(line)
  except (ValueError, RecursionError):
    return None
  if not conforms(record, Record):
    return None
  return record if record["value"] is not None or record["status"] == FAILED else None
