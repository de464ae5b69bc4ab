"""Curves of runs: a panel for each metric, a line for each run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib import figure

from sasa_tf.reporting.plot_style import COLORS, finish_axes, plain_labels
from sasa_tf.run_reports.runs import Run

_MAX_PANELS = 12
_MAX_LEGEND = 16
_LINES = ("-", "--", ":", "-.")
_KINDS = (("train", "training"), ("evaluation", "evaluation"))


@plain_labels
def plot_curves(runs: Sequence[Run]) -> figure.Figure | None:
  """Returns the curves over the training step; None if nothing was logged.

  Metrics of the evaluations come first, then those of the training. A metric with a single point
  is drawn as a point.
  """
  panels = _panels(runs)
  if not panels:
    return None
  columns = min(2, len(panels))
  rows = math.ceil(len(panels) / columns)
  image = figure.Figure(figsize=(6 * columns, 0.6 + 3.2 * rows), layout="constrained", dpi=120)
  grid = [*image.subplots(rows, columns, squeeze=False).flat]
  for axes, (kind, label, metric) in zip(grid, panels, strict=False):
    _draw(axes, runs, kind, metric)
    axes.set_title(f"{label}: {metric}", fontsize=10, loc="left")
    axes.set_xlabel("step")
    finish_axes(axes)
  for axes in grid[len(panels) :]:
    axes.remove()
  handles, labels = image.axes[0].get_legend_handles_labels()
  if 1 < len(runs) <= _MAX_LEGEND:
    image.legend(
      handles,
      labels,
      loc="outside upper center",
      frameon=False,
      ncols=min(4, len(runs)),
      fontsize=8,
    )
  return image


def _panels(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
  """Returns (kind of event, label, metric) of each panel."""
  found: dict[tuple[str, str, str], None] = {}
  for kind, label in reversed(_KINDS):
    for run in runs:
      for event in run.log.series(kind):
        found |= {(kind, label, metric): None for metric in event["metrics"]}
  return list(found)[:_MAX_PANELS]


def _draw(axes: Any, runs: Sequence[Run], kind: str, metric: str) -> None:
  for number, run in enumerate(runs):
    events = [event for event in run.log.series(kind) if metric in event["metrics"]]
    axes.plot(
      [event["step"] for event in events],
      [event["metrics"][metric] for event in events],
      color=COLORS[number % len(COLORS)],
      linestyle=_LINES[number // len(COLORS) % len(_LINES)],
      linewidth=1.2,
      marker="o" if len(events) < 2 else None,
      label=run.name,
    )
