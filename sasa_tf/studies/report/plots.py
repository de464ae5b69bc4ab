"""Plots of the report."""

from __future__ import annotations

import math

from matplotlib import figure

from sasa_tf.reporting.plot_style import BASELINE_COLOR, COLORS, INK, finish_axes, plain_labels
from sasa_tf.studies.report.summary import RowSummary, StudySummary
from sasa_tf.studies.report.tables import row_label


@plain_labels
def make_plots(summary: StudySummary) -> dict[str, figure.Figure]:
  """Returns {name: plot}: the metric of each row, over the cost, and over the time."""
  plots = {"metric": _plot_metric(summary), "cost": _plot_cost(summary)}
  if any(len(r["evaluations"]) > 1 for row in summary.rows for r in row.finished):
    plots["time"] = _plot_time(summary)
  return plots


def _color(summary: StudySummary, row: RowSummary) -> str:
  if row is summary.baseline:
    return BASELINE_COLOR
  others = [other.name for other in summary.rows if other is not summary.baseline]
  return COLORS[others.index(row.name) % len(COLORS)]


def _plot_metric(summary: StudySummary) -> figure.Figure:
  """A line per row: each seed, and the mean with its standard deviation."""
  rows = summary.rows[::-1]
  image = figure.Figure(figsize=(8, 1.2 + 0.36 * len(rows)), layout="constrained", dpi=120)
  axes = image.subplots()
  for position, row in enumerate(rows):
    color = _color(summary, row)
    values = [100 * value for value in row.values]
    axes.plot(values, [position] * len(values), "o", color=color, alpha=0.4, markersize=5)
    error = None if math.isnan(row.spread) else 100 * row.spread
    axes.errorbar(100 * row.mean, position, xerr=error, fmt="|", color=color, capsize=4, ms=14)
  if summary.baseline is not None:
    axes.axvline(100 * summary.baseline.mean, color=BASELINE_COLOR, linewidth=0.8, linestyle="--")
  axes.set_yticks(range(len(rows)), [row_label(row) for row in rows])
  axes.set_xlabel(f"{summary.metric}, % (points: seeds; bars: mean and standard deviation)")
  finish_axes(axes, "x")
  return image


def _plot_cost(summary: StudySummary) -> figure.Figure:
  """The metric over parameters, FLOPs and training speed."""
  image = figure.Figure(figsize=(15, 4.5), layout="constrained", dpi=120)
  panels = (
    ("parameters, millions", lambda row: row.parameters and row.parameters / 1e6),
    ("GFLOPs per image", lambda row: row.flops() and row.flops() / 1e9),
    ("training, images per second", lambda row: row.median("images_per_second")),
  )
  for axes, (label, cost) in zip(image.subplots(1, len(panels), sharey=True), panels, strict=True):
    for row in summary.rows:
      x = cost(row)
      if x:
        axes.plot(x, 100 * row.mean, "o", color=_color(summary, row))
        axes.annotate(
          row.name,
          (x, 100 * row.mean),
          xytext=(4, 3),
          textcoords="offset points",
          fontsize=7,
          color=INK,
        )
    axes.set_xlabel(label)
    axes.margins(x=0.18)
    finish_axes(axes, "both")
  image.axes[0].set_ylabel(f"{summary.metric}, %")
  return image


def _plot_time(summary: StudySummary) -> figure.Figure:
  """The metric of each evaluation over the training time, a line per run."""
  image = figure.Figure(figsize=(8, 5), layout="constrained", dpi=120)
  axes = image.subplots()
  for row in summary.rows:
    for number, record in enumerate(row.finished):
      events = [e for e in record["evaluations"] if summary.metric in e["metrics"]]
      axes.plot(
        [event["seconds"] / 60 for event in events],
        [100 * event["metrics"][summary.metric] for event in events],
        color=_color(summary, row),
        linewidth=1,
        label=None if number else row.name,
      )
  axes.set_xlabel("minutes of training")
  axes.set_ylabel(f"{summary.metric}, %")
  axes.legend(frameon=False, fontsize=7, loc="lower right", ncols=2)
  finish_axes(axes, "both")
  return image
