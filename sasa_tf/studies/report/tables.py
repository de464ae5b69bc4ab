"""Tables of the report."""

from __future__ import annotations

import math

from sasa_tf.reporting import Column, Table
from sasa_tf.studies.report.statistics import Comparison, compare, verdict
from sasa_tf.studies.report.summary import RowSummary, StudySummary


def results_table(summary: StudySummary) -> Table:
  """Returns a table with a line for each row: metric, cost, speed and memory."""
  table = Table(
    [
      Column("row", "left"),
      Column("seeds"),
      Column(f"{summary.metric}, %"),
      Column("difference, points"),
      Column("p"),
      Column("parameters"),
      Column("of baseline"),
      Column("GFLOPs"),
      Column("of baseline"),
      Column("images/s"),
      Column("peak GiB"),
      Column("minutes"),
      Column("seconds to target"),
    ]
  )
  baseline = summary.baseline
  for row in summary.rows:
    comparison = summary.to_baseline(row)
    flops = row.flops()
    images, peak = row.median("images_per_second"), row.median("peak_memory", "bytes")
    minutes, seconds = row.median("seconds"), row.median("target", "seconds")
    table.add_row(
      row.name,
      str(len(row.finished)),
      percent(row.mean, row.spread),
      points(comparison) if comparison else "",
      p_value(comparison) if comparison else "",
      f"{row.parameters:,}" if row.parameters else "",
      _ratio(row.parameters, baseline.parameters if baseline else None),
      f"{flops / 1e9:.3f}" if flops else "",
      _ratio(flops, baseline.flops() if baseline else None),
      f"{images:,.0f}" if images else "",
      f"{peak / 2**30:.2f}" if peak else "",
      f"{minutes / 60:.1f}" if minutes else "",
      f"{seconds:.0f}" if seconds else "",
      style="bold" if row is baseline else None,
    )
  return table


def findings_table(summary: StudySummary) -> Table | None:
  """Returns a table of the paper's findings and whether the results agree; None without any."""
  table = Table(
    [
      Column("row", "left"),
      Column("compared with", "left"),
      Column("difference, points"),
      Column("p"),
      Column("the paper", "left"),
      Column("verdict", "left"),
    ]
  )
  found = False
  for row in (*summary.rows, *summary.unfinished):
    report = row.report
    if report["paper"] is None:
      continue
    found = True
    other = summary.row(report["compare_with"])
    cells = [row.name, report["compare_with"] or ""]
    if not row.finished or (report["compare_with"] and other is None):
      table.add_row(*cells, "", "", report["paper"], "no result")
    elif other is None:
      table.add_row(*cells, "", "", report["paper"], "")
    else:
      comparison = compare(row.values, other.values)
      decided = verdict(comparison, report["expect"])
      table.add_row(*cells, points(comparison), p_value(comparison), report["paper"], decided)
  return table if found else None


def failures_table(summary: StudySummary) -> Table | None:
  """Returns a table of the runs that failed; None without any."""
  if not summary.failed:
    return None
  table = Table([Column("run", "left"), Column("step"), Column("error", "left")])
  for record in summary.failed:
    case = record["case"]
    table.add_row(f"{case['row']}, seed {case['seed']}", str(record["step"]), record["error"])
  return table


def describe(summary: StudySummary) -> list[str]:
  """Returns lines about machine, versions and statistics."""
  records = [record for row in summary.rows for record in row.finished]
  lines = []
  for title, key in (
    ("Device", lambda r: f"{r['device']}, {r['processes_per_gpu']} at a time"),
    ("Versions", lambda r: ", ".join(f"{n} {v}" for n, v in (r["versions"] or {}).items() if v)),
    ("Commit", lambda r: r["commit"]),
    (
      "Training",
      lambda r: r["train_steps"] and f"{r['train_steps']:,} steps of {r['batch_size']} images",
    ),
    ("Peak memory", lambda r: (r["peak_memory"] or {}).get("kind")),
  ):
    values = dict.fromkeys(str(value) for value in map(key, records) if value)
    if values:
      lines.append(f"{title}: {'; '.join(values)}.")
  dates = sorted(record["timestamp"][:10] for record in records)
  lines.append(f"Dates: {dates[0]} to {dates[-1]}.")
  baseline = summary.baseline
  lines += [
    f"Baseline: {baseline.name}." if baseline else "No run of the baseline finished.",
    f"{summary.metric}: mean and standard deviation over the seeds, at the last evaluation.",
    "Difference: to the baseline, with the 95 % confidence interval; p of Welch's t-test, without "
    "a correction for the number of comparisons.",
    "FLOPs: of a forward pass of an image, 2 per multiply-add (convention mac).",
    "Minutes: training and evaluations, without the start of the process.",
  ]
  return lines


def percent(mean: float, deviation: float) -> str:
  """Returns "91.50 ± 0.12" from fractions."""
  text = f"{100 * mean:.2f}"
  return text if math.isnan(deviation) else f"{text} ± {100 * deviation:.2f}"


def points(comparison: Comparison) -> str:
  """Returns "+0.10 (-0.21 to +0.41)" from fractions."""
  text = f"{100 * comparison.difference:+.2f}"
  if math.isnan(comparison.low):
    return text
  return f"{text} ({100 * comparison.low:+.2f} to {100 * comparison.high:+.2f})"


def p_value(comparison: Comparison) -> str:
  """Returns the p value, "" with a single seed."""
  if math.isnan(comparison.p_value):
    return ""
  return "< 0.001" if comparison.p_value < 0.001 else f"{comparison.p_value:.3f}"


def _ratio(value: float | None, base: float | None) -> str:
  return f"{value / base:.0%}" if value and base else ""


def row_label(row: RowSummary) -> str:
  """Returns the label of a row in a plot."""
  return f"{row.name} ({len(row.finished)})"
