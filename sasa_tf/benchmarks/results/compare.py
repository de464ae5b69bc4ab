"""Comparison of two result files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sasa_tf.benchmarks.results.records import Measurement, group
from sasa_tf.benchmarks.results.report import describe, milliseconds
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.reporting import WIDTH, Table, clip

_HEADERS = ("candidate", "old ms", "new ms", "new/old", "verdict", "old MiB", "new MiB", "new/old")


def _verdict(old: Measurement, new: Measurement) -> str:
  if old.summary.overlaps(new.summary):
    return "quartiles overlap"
  return "faster" if new.summary.median < old.summary.median else "slower"


def _cells(case: Case, old: Measurement | None, new: Measurement | None) -> list[str]:
  row = [case.candidate]
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
  """Returns the entries of the environment that differ, except for the time."""
  return [
    f"{name}: {old.get(name)} -> {new.get(name)}"
    for name in new
    if name != "timestamp" and old.get(name) != new.get(name)
  ]


def compare(old: Sequence[Measurement], new: Sequence[Measurement]) -> str:
  """Returns tables that compare two lists of results.

  Args:
    old: the results to compare with.
    new: the results to evaluate.

  Returns:
    A table for each group that both contain. It shows the ratio of the medians, which is below 1
    where the new result is faster. Where the interquartile ranges overlap, the difference may be
    noise.
  """
  by_case = [{m.case: m for m in measurements} for measurements in (old, new)]
  all_cases = {m.case: m for m in [*old, *new]}
  changed = _differences(old[-1].environment, new[-1].environment)
  lines = [describe(new[-1].environment)]
  lines += [clip(f"changed   {entry}", WIDTH) for entry in changed]
  common = {m.case.group for m in old} & {m.case.group for m in new}
  for measurements in group(all_cases.values()):
    cases = [m.case for m in measurements]
    if cases[0].group not in common:
      continue
    table = Table(_HEADERS)
    for case in cases:
      table.add_row(*_cells(case, by_case[0].get(case), by_case[1].get(case)))
    lines += ["", cases[0].describe(), table.to_text()]
  for name, results in (("old", old), ("new", new)):
    alone = {m.case.group for m in results} - common
    if alone:
      lines += ["", f"only in the {name} results: {len(alone)} other settings"]
  return "\n".join(lines)
