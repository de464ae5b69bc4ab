"""Draws the figures and badges of the README, in a light and a dark version.

  python docs/images/make_figures.py

The chart reads docs/results.json. The output is deterministic for a version of matplotlib.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

DIRECTORY = pathlib.Path(__file__).parent
ROOT = DIRECTORY.parent.parent
sys.path[:0] = [str(DIRECTORY), str(ROOT / "docs")]

import render_results  # noqa: E402
from drawing import (  # noqa: E402
  THEMES,
  Theme,
  blend,
  configure,
  draw_arrow,
  draw_cells,
  draw_outline,
  save,
)

KERNEL = 7
ROWS, COLUMNS = 11, 13  # of the feature map
QUERY = (5, 6)


def _weights() -> np.ndarray:
  """Returns the weights of the example: a softmax of smooth logits."""
  a, b = np.mgrid[-3:4, -3:4]
  logits = 1.7 * np.exp(-((a + 1.2) ** 2 + (b - 0.8) ** 2) / 3) + 1.5 * np.cos(0.8 * a + 1.1 * b)
  weights = np.exp(logits)
  return weights / weights.sum()


def _symbol(axes, name: str, left: float, top: float) -> None:
  """Writes the symbol of the query or the output into its cell."""
  axes.text(
    left + QUERY[1] + 0.5,
    top + QUERY[0] + 0.47,
    f"${name}$",
    color="white",
    ha="center",
    va="center",
    fontsize=8,
  )


def _feature_map(axes, theme: Theme, left: float, top: float) -> None:
  """Draws the input with the window of the query and its relative embeddings."""
  half = KERNEL // 2
  colors = [[theme.cell] * COLUMNS for _ in range(ROWS)]
  for i in range(QUERY[0] - half, QUERY[0] + half + 1):
    for j in range(QUERY[1] - half, QUERY[1] + half + 1):
      colors[i][j] = theme.window
  colors[QUERY[0]][QUERY[1]] = theme.query
  draw_cells(axes, left, top, colors, 1, theme.grid)
  window = (left + QUERY[1] - half, top + QUERY[0] - half)
  draw_outline(axes, *window, KERNEL, KERNEL, theme.query)
  _symbol(axes, "q", left, top)
  for offset in range(-half, half + 1):
    text = f"{offset:+d}".replace("-", "\N{MINUS SIGN}") if offset else "0"
    for center, (width, height), color in (
      ((left - 0.95, top + QUERY[0] + offset + 0.5), (0.9, 1), theme.row),
      ((left + QUERY[1] + offset + 0.5, top - 0.95), (1, 0.9), theme.column),
    ):
      corner = (center[0] - width / 2, center[1] - height / 2)
      fill = blend(color, theme.cell, 0.2)
      axes.add_patch(Rectangle(corner, width, height, facecolor=fill, edgecolor=color, lw=0.8))
      axes.text(*center, text, color=color, ha="center", va="center", fontsize=6.2)
  axes.text(
    left - 1.9,
    top + QUERY[0] + 0.5,
    "relative rows",
    color=theme.row,
    rotation=90,
    ha="center",
    va="center",
    fontsize=8,
  )
  axes.text(
    left + QUERY[1] + 0.5,
    top - 1.95,
    "relative columns",
    color=theme.column,
    ha="center",
    va="center",
    fontsize=8,
  )


def _window_figure(theme: Theme):
  """Returns the figure of the 7 x 7 window, its weights and the output."""
  figure = plt.figure(figsize=(8.6, 3.1))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_xlim(0, 49.5)
  axes.set_ylim(17.85, 0)
  axes.axis("off")
  top = 3.1
  _feature_map(axes, theme, 3.0, top)
  axes.text(
    9.5,
    top + ROWS + 1.1,
    "input: query pixel and its window",
    color=theme.text,
    ha="center",
    va="center",
    fontsize=9,
  )

  weights = _weights()
  size, left = 1.25, 21.2
  heat_top = top + (ROWS - KERNEL * size) / 2
  shares = weights / weights.max()
  draw_cells(
    axes,
    left,
    heat_top,
    [[blend(theme.heat, theme.cell, 0.06 + 0.94 * s) for s in line] for line in shares],
    size,
    theme.grid,
  )
  draw_outline(axes, left, heat_top, KERNEL * size, KERNEL * size, theme.query)
  axes.text(
    left + KERNEL * size / 2,
    top + ROWS + 1.1,
    "weights: softmax over 49 logits",
    color=theme.text,
    ha="center",
    va="center",
    fontsize=9,
  )
  axes.text(
    left + KERNEL * size / 2,
    heat_top - 1.0,
    r"softmax($q \cdot k + q \cdot r$)",
    color=theme.muted,
    ha="center",
    va="center",
    fontsize=9,
  )

  right = 35.6
  colors = [[theme.cell] * COLUMNS for _ in range(ROWS)]
  colors[QUERY[0]][QUERY[1]] = theme.query
  draw_cells(axes, right, top, colors, 1, theme.grid)
  _symbol(axes, "y", right, top)
  axes.text(
    right + COLUMNS / 2,
    top + ROWS + 1.1,
    "output: weighted sum of the values",
    color=theme.text,
    ha="center",
    va="center",
    fontsize=9,
  )
  middle = top + ROWS / 2
  draw_arrow(axes, (16.6, middle), (left - 0.5, middle), theme.muted)
  draw_arrow(axes, (left + KERNEL * size + 0.5, middle), (right - 0.5, middle), theme.muted)
  axes.text(
    (left + KERNEL * size + right) / 2,
    middle - 1.0,
    r"$\sum\ \cdot\ v$",
    color=theme.muted,
    ha="center",
    va="center",
    fontsize=10,
  )
  equation = (
    r"$y_{ij} = \sum_{(a,b)\,\in\,7\times7\ \mathrm{window}}"
    r"\ \mathrm{softmax}_{ab}(q_{ij} \cdot k_{ab} + q_{ij} \cdot r_{a-i,\,b-j})\ v_{ab}$"
  )
  axes.text(24.75, 16.85, equation, color=theme.text, ha="center", va="center", fontsize=10.5)
  return figure


def chart_values() -> dict[str, list[float]]:
  """Returns what the chart shows, by title: convolution, conv stem + attention, full attention."""
  return {
    "parameters, M": [n / 1e6 for n in render_results.column("model_cost", "parameters").values()],
    "GFLOPs": list(render_results.column("model_cost", "GFLOPs").values()),
    "training on an H200, images/s": list(render_results.latest_training_speed().values()),
  }


def _chart_figure(theme: Theme):
  """Returns bars of parameters, FLOPs and speed of three ResNet-50."""
  figure, panels = plt.subplots(1, 3, figsize=(8.6, 1.35))
  figure.subplots_adjust(left=0.17, right=0.985, top=0.80, bottom=0.03, wspace=0.12)
  names = ("convolution", "conv stem + attention", "full attention")
  for index, (axes, (title, values)) in enumerate(zip(panels, chart_values().items(), strict=True)):
    axes.barh(range(3), values, color=theme.bars, height=0.68)
    axes.set_title(title, fontsize=9, color=theme.text, loc="left", pad=5)
    if index == 0:
      axes.text(
        -0.03,
        1.07,
        "ResNet-50, 224 px",
        transform=axes.transAxes,
        ha="right",
        fontsize=9,
        fontweight="bold",
        color=theme.text,
      )
    axes.set_xlim(0, max(values) * 1.28)
    axes.set_ylim(2.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(3), names if index == 0 else [], fontsize=9, color=theme.text)
    axes.tick_params(length=0)
    for side in axes.spines:
      axes.spines[side].set_visible(side == "left")
    axes.spines["left"].set_color(theme.grid)
    for row, value in enumerate(values):
      text = f"{value:,.0f}" if value > 100 else f"{value:.1f}"
      axes.text(value + max(values) * 0.02, row, text, va="center", fontsize=9, color=theme.text)
  return figure


_BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img">
<title>{label}: {value}</title>
<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)">
<rect width="{left}" height="20" fill="#57606a"/>
<rect x="{left}" width="{right}" height="20" fill="{color}"/>
</g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{label_x}" y="14" textLength="{label_length}">{label}</text>
<text x="{value_x}" y="14" textLength="{value_length}">{value}</text>
</g></svg>
"""


def badges() -> dict[str, str]:
  """Returns the badges by file name. Their values are read from setup.py and LICENSE."""
  setup = (ROOT / "setup.py").read_text()
  first, last = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', setup).groups()
  first_minor, next_minor = re.search(r'"tensorflow>=2\.(\d+),<2\.(\d+)"\]', setup).groups()
  assert "Apache License" in (ROOT / "LICENSE").read_text()
  values = {
    "python": (f"3.{first} \N{EN DASH} 3.{int(last) - 1}", "#0969da"),
    "tensorflow": (f"2.{first_minor} \N{EN DASH} 2.{int(next_minor) - 1}", "#d4691a"),
    "license": ("Apache-2.0", "#1a7f37"),
  }
  return {f"badge-{label}.svg": _badge(label, *value) for label, value in values.items()}


def _badge(label: str, value: str, color: str) -> str:
  font = matplotlib.font_manager.FontProperties(family="DejaVu Sans")
  lengths = [
    round(TextPath((0, 0), text, size=11, prop=font).get_extents().width) for text in (label, value)
  ]
  left, right = (length + 14 for length in lengths)
  return _BADGE.format(
    label=label,
    value=value,
    color=color,
    width=left + right,
    left=left,
    right=right,
    label_x=left / 2,
    value_x=left + right / 2,
    label_length=lengths[0],
    value_length=lengths[1],
  )


def main() -> None:
  """Writes all figures and badges."""
  configure()
  for mode, theme in THEMES.items():
    for name, draw, description in (
      ("window", _window_figure, ""),
      ("chart", _chart_figure, json.dumps(chart_values())),
    ):
      save(draw(theme), DIRECTORY / f"{name}-{mode}.svg", description)
  for name, badge in badges().items():
    (DIRECTORY / name).write_text(badge)


if __name__ == "__main__":
  main()
