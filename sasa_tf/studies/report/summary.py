"""Groups the results of a study by row."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from sasa_tf.errors import UserError
from sasa_tf.studies.records import FINISHED
from sasa_tf.studies.report.statistics import Comparison, compare, mean, spread


@dataclasses.dataclass(frozen=True)
class RowSummary:
  """The results of a row.

  Attributes:
    name: of the row.
    finished: results of its finished runs, by seed.
    failed: results of its failed runs.
  """

  name: str
  finished: tuple[dict[str, Any], ...]
  failed: tuple[dict[str, Any], ...]

  @property
  def values(self) -> list[float]:
    """The metric of each finished run."""
    return [record["value"] for record in self.finished]

  @property
  def mean(self) -> float:
    """Mean over the seeds."""
    return mean(self.values)

  @property
  def spread(self) -> float:
    """Standard deviation over the seeds; NaN with a single one."""
    return spread(self.values)

  @property
  def report(self) -> dict[str, Any]:
    """What the study file says about the row."""
    return (self.finished or self.failed)[-1]["report"]

  @property
  def parameters(self) -> int | None:
    """Number of trainable weights."""
    return self.finished[-1]["parameters"]

  def flops(self, convention: str = "mac") -> int | None:
    """FLOPs of a forward pass of an image; None if they were not counted."""
    return next((r["flops"][convention] for r in self.finished if r["flops"]), None)

  def median(self, *keys: str) -> float | None:
    """Median of a number over the seeds; None without one."""
    found = []
    for record in self.finished:
      value: Any = record
      for key in keys:
        value = value and value.get(key)
      if value is not None:
        found.append(value)
    return statistics.median(found) if found else None


@dataclasses.dataclass(frozen=True)
class StudySummary:
  """The results of a study.

  Attributes:
    name: of the study.
    rows: with finished runs, in the order of the study file.
    unfinished: rows that have only failed runs.
    failed: results of failed runs, of all rows.
    baseline: the row that others are compared with; None if it has no finished run.
  """

  name: str
  rows: tuple[RowSummary, ...]
  unfinished: tuple[RowSummary, ...]
  failed: tuple[dict[str, Any], ...]
  baseline: RowSummary | None

  @property
  def metric(self) -> str:
    """Name of the metric."""
    return self.rows[0].finished[0]["metric"]

  def row(self, name: str | None) -> RowSummary | None:
    """Returns a row with finished runs, or None."""
    return next((row for row in self.rows if row.name == name), None)

  def to_baseline(self, row: RowSummary) -> Comparison | None:
    """Compares a row with the baseline; None for the baseline itself, or without one."""
    if self.baseline is None or row.name == self.baseline.name:
      return None
    return compare(row.values, self.baseline.values)


def summarize(results: Sequence[dict[str, Any]], baseline: str | None = None) -> StudySummary:
  """Groups results by row.

  Args:
    results: from `records.read_results`.
    baseline: the row to compare with; None for that of the study file.

  Raises:
    UserError: the results are of several studies, none is of a finished run, or the baseline has
      no results.
  """
  studies = sorted({record["case"]["study"] for record in results})
  if len(studies) != 1:
    raise UserError(
      f"expected results of one study; received those of {', '.join(studies)}. Pass their files in "
      "separate commands."
    )
  ordered = sorted(
    results, key=lambda record: (record["report"]["position"], record["case"]["seed"])
  )
  by_row: dict[str, list[dict[str, Any]]] = {}
  for record in ordered:
    by_row.setdefault(record["case"]["row"], []).append(record)
  rows = [
    RowSummary(
      name,
      tuple(record for record in records if record["status"] == FINISHED),
      tuple(record for record in records if record["status"] != FINISHED),
    )
    for name, records in by_row.items()
  ]
  finished = tuple(row for row in rows if row.finished)
  if not finished:
    raise UserError(
      f"no run of the study {studies[0]} finished; the first error is: {ordered[0]['error']}"
    )
  named = baseline or finished[-1].report["baseline"]
  if baseline is not None and baseline not in {row.name for row in finished}:
    raise UserError(
      f"--baseline={baseline}: no finished run of that row. There are runs of "
      f"{', '.join(row.name for row in finished)}."
    )
  return StudySummary(
    studies[0],
    finished,
    tuple(row for row in rows if not row.finished),
    tuple(record for record in ordered if record["status"] != FINISHED),
    next((row for row in finished if row.name == named), None),
  )
