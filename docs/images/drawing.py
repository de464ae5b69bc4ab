"""Colors and shapes that the figures share, for the two color modes of GitHub and the site."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle


class Theme(NamedTuple):
  """Colors for one of GitHub's color modes."""

  text: str
  muted: str
  grid: str
  cell: str
  window: str
  query: str
  row: str
  column: str
  bars: tuple[str, str, str]
  heat: str


THEMES = {
  "light": Theme(
    text="#1f2328",
    muted="#59636e",
    grid="#c8d1da",
    cell="#f6f8fa",
    window="#cfe3fb",
    query="#0969da",
    row="#d4691a",
    column="#1a7f37",
    bars=("#8c959f", "#0969da", "#54aeff"),
    heat="#0969da",
  ),
  "dark": Theme(
    text="#f0f6fc",
    muted="#9198a1",
    grid="#3d444d",
    cell="#151b23",
    window="#1b3f6b",
    query="#58a6ff",
    row="#f0883e",
    column="#3fb950",
    bars=("#8b949e", "#388bfd", "#79c0ff"),
    heat="#58a6ff",
  ),
}


def blend(color: str, background: str, weight: float) -> np.ndarray:
  """Returns a mix of two colors with this weight of the first."""
  one, other = (np.array(matplotlib.colors.to_rgb(c)) for c in (color, background))
  return weight * one + (1 - weight) * other


def draw_cells(axes, left: float, top: float, colors, size: float, edge: str) -> None:
  """Draws a grid of cells, row by row from (left, top)."""
  for i, line in enumerate(colors):
    for j, color in enumerate(line):
      axes.add_patch(
        Rectangle(
          (left + j * size, top + i * size), size, size, facecolor=color, edgecolor=edge, lw=0.7
        )
      )


def draw_outline(axes, left: float, top: float, width: float, height: float, color: str) -> None:
  """Draws a frame."""
  axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, lw=1.8))


def draw_arrow(axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
  """Draws an arrow."""
  axes.add_patch(
    FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, lw=1.3, color=color)
  )


def configure() -> None:
  """Sets fonts, and what makes the output deterministic for a version of matplotlib."""
  matplotlib.use("svg")
  matplotlib.rcParams.update(
    {"svg.hashsalt": "sasa_tf", "font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans"}
  )


def save(figure: Any, path: pathlib.Path, description: str = "") -> None:
  """Writes an SVG file without a background, and closes the figure."""
  metadata = {"Date": None, "Creator": None, "Description": description}
  figure.savefig(path, transparent=True, metadata=metadata)
  plt.close(figure)
