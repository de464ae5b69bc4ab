"""Two files of results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sasa_tf.benchmarks.results.records import Measurement, group
from sasa_tf.benchmarks.results.report import describe, milliseconds
from sasa_tf.benchmarks.results.table import WIDTH, clip, format_table
from sasa_tf.benchmarks.workloads.cases import Case

_HEADERS = ("contestant", "old ms", "new ms", "new/old", "verdict", "old MiB", "new MiB", "new/old")


def _verdict(old: Measurement, new: Measurement) -> str:
  if old.summary.overlaps(new.summary):
    return "quartiles overlap"
  return "faster" if new.summary.median < old.summary.median else "slower"


def _row(case: Case, old: Measurement | None, new: Measurement | None) -> list[str]:
  row = [case.contestant]
  both = old is not None and new is not None
  timed = both and bool(old.seconds and new.seconds)
  for measurement in (old, new):
    if measurement is None:
      row.append("absent")
    else:
      row.append(milliseconds(measurement.summary.median) if measurement.seconds else "failed")
  row.append(f"{new.summary.median / old.summary.median:.3f}" if timed else "")
  row.append(_verdict(old, new) if timed else "")
  peaks = [m and m.peak_bytes for m in (old, new)]
  row += ["" if peak is None else f"{peak / 2**20:,.1f}" for peak in peaks]
  row.append(f"{peaks[1] / peaks[0]:.3f}" if all(peaks) else "")
  return row


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """Facts of the environment, but for the time, that differ."""
  return [
    f"{name}: {old.get(name)} -> {new.get(name)}"
    for name in new
    if name != "timestamp" and old.get(name) != new.get(name)
  ]


def compare(old: Sequence[Measurement], new: Sequence[Measurement]) -> str:
  """Returns tables of what both or one of two results hold.

  Args:
    old: the results to compare with.
    new: the results to judge.

  Returns:
    For each group that both have measured a table with the ratio of the medians, below one where
    the new one is faster, and whether the ranges between the quartiles overlap, so that the
    difference may be chance.
  """
  by_case = [{m.case: m for m in measurements} for measurements in (old, new)]
  everything = {m.case: m for m in [*old, *new]}
  changed = _differences(old[-1].environment, new[-1].environment)
  lines = [describe(new[-1].environment)]
  lines += [clip(f"changed   {fact}", WIDTH) for fact in changed]
  common = {m.case.group for m in old} & {m.case.group for m in new}
  for measurements in group(everything.values()):
    cases = [m.case for m in measurements]
    if cases[0].group not in common:
      continue
    rows = [_row(case, by_case[0].get(case), by_case[1].get(case)) for case in cases]
    lines += ["", cases[0].describe(), format_table(_HEADERS, rows, [None] * len(rows))]
  for name, results in (("old", old), ("new", new)):
    alone = {m.case.group for m in results} - common
    if alone:
      lines += ["", f"only in the {name} results: {len(alone)} other settings"]
  return "\n".join(lines)
