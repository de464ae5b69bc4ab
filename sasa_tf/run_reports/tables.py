"""Tables of runs: results, and differences of their configurations."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.reporting import Column, Table, format_duration
from sasa_tf.run_reports.runs import Run

_MAX_METRICS = 6
# Differ in every run.
_IGNORED_KEYS = ("runtime.tpu", "task.name")
_MISSING = "-"


def evaluation_metrics(runs: Sequence[Run]) -> list[str]:
  """Returns the names of the metrics of evaluations, those that most runs have first."""
  counts: dict[str, int] = {}
  for run in runs:
    for name in _last_evaluation(run):
      counts[name] = counts.get(name, 0) + 1
  return sorted(counts, key=lambda name: -counts[name])


def _last_evaluation(run: Run) -> dict[str, float]:
  evaluations = run.log.series("evaluation")
  return evaluations[-1]["metrics"] if evaluations else {}


def runs_table(runs: Sequence[Run]) -> Table:
  """Returns a table with a line for each run: progress, cost, and the last evaluation."""
  metrics = evaluation_metrics(runs)[:_MAX_METRICS]
  columns = [
    Column("run", "left"),
    Column("steps"),
    Column("parameters"),
    Column("images/s"),
  ]
  columns += [Column("peak GiB"), Column("time"), *map(Column, metrics)]
  table = Table(columns)
  for run in runs:
    log = run.log
    peak, images = log.peak_memory, log.images_per_second
    parameters = log.begin.get("parameters")
    last = _last_evaluation(run)
    table.add_row(
      run.name,
      _steps(run),
      f"{parameters:,}" if parameters else _MISSING,
      f"{images:,.0f}" if images else _MISSING,
      f"{peak['bytes'] / 2**30:.2f}" if peak else _MISSING,
      format_duration(log.seconds),
      *(f"{last[name]:.4g}" if name in last else _MISSING for name in metrics),
    )
  return table


def _steps(run: Run) -> str:
  total = run.log.begin.get("train_steps")
  if run.log.is_finished or not total:
    return f"{run.log.last_step:,}"
  return f"{run.log.last_step:,} of {total:,}"


def differences_table(runs: Sequence[Run]) -> Table | None:
  """Returns a table of the configuration's keys whose values differ; None without any."""
  known = [run for run in runs if run.params]
  keys = [key for run in known for key in run.params]
  differing = [
    key
    for key in dict.fromkeys(keys)
    if key not in _IGNORED_KEYS and len({_value(run, key) for run in known}) > 1
  ]
  if not differing:
    return None
  table = Table([Column("key", "left"), *(Column(run.name, "left") for run in known)])
  for key in differing:
    table.add_row(key, *(_value(run, key) for run in known))
  return table


def _value(run: Run, key: str) -> str:
  return str(run.params[key]) if key in run.params else _MISSING
