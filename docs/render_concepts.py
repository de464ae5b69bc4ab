"""Draws the figures of docs/concepts.md, in a light and a dark version.

  python docs/render_concepts.py

The weights in the figures are computed by the operations that the figures explain.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

ROOT = pathlib.Path(__file__).parent.parent
DIRECTORY = ROOT / "docs" / "images" / "concepts"
sys.path.insert(0, str(ROOT / "docs" / "images"))

import drawing  # noqa: E402
from drawing import Theme, blend, draw_arrow, draw_cells, draw_outline  # noqa: E402

HEAD_DIM = 8


def _canvas(width: float, height: float) -> tuple[Any, Any]:
  """Returns a figure and its axes, in which a unit is a cell of the feature map."""
  figure = plt.figure(figsize=(8.6, 8.6 * height / width))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_xlim(0, width)
  axes.set_ylim(height, 0)
  axes.axis("off")
  return figure, axes


def _label(axes: Any, x: float, y: float, text: str, color: str, size: float = 9) -> None:
  axes.text(x, y, text, color=color, ha="center", va="center", fontsize=size)


def _map(
  axes: Any,
  theme: Theme,
  left: float,
  top: float,
  shape: tuple[int, int],
  window: Iterable[tuple[int, int]] = (),
  query: tuple[int, int] | None = None,
) -> None:
  """Draws a feature map with the pixels of a window and a query."""
  rows, columns = shape
  axes.add_patch(Rectangle((left, top), columns, rows, facecolor=theme.cell))
  for i, j in window:
    axes.add_patch(Rectangle((left + j, top + i), 1, 1, facecolor=theme.window))
  if query:
    corner = (left + query[1], top + query[0])
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=theme.query))
    _label(axes, corner[0] + 0.5, corner[1] + 0.47, "$q$", "white", 8)
  _grid(axes, theme, left, top, shape)


def _grid(axes: Any, theme: Theme, left: float, top: float, shape: tuple[int, int]) -> None:
  """Draws the lines between the cells of a feature map."""
  rows, columns = shape
  lines = [[(left, top + i), (left + columns, top + i)] for i in range(rows + 1)]
  lines += [[(left + j, top), (left + j, top + rows)] for j in range(columns + 1)]
  axes.add_collection(LineCollection(lines, colors=theme.grid, linewidths=0.7, zorder=1))


def _heat(
  axes: Any, theme: Theme, left: float, top: float, shares: np.ndarray, size: float = 1
) -> None:
  """Draws values from 0 to 1 as a heat map."""
  colors = [[blend(theme.heat, theme.cell, s) for s in line] for line in shares]
  draw_cells(axes, left, top, colors, size, theme.grid)


def _signed_heat(axes: Any, theme: Theme, left: float, top: float, values: np.ndarray) -> None:
  """Draws values of both signs: row color for positive ones, column color for negative ones."""
  colors = [
    [blend(theme.row if v > 0 else theme.column, theme.cell, min(abs(v), 1)) for v in line]
    for line in values
  ]
  draw_cells(axes, left, top, colors, 1, theme.grid)


def window(theme: Theme) -> Any:
  """Three windows of one query: sizes 3 and 7, and size 3 with a dilation rate of 2."""
  size, query = 9, (4, 4)
  figure, axes = _canvas(37, 11.6)
  for left, kernel, rate, title in (
    (1, 3, 1, "kernel_size=3"),
    (14, 7, 1, "kernel_size=7"),
    (27, 3, 2, "kernel_size=3, dilation_rate=2"),
  ):
    reach = kernel // 2 * rate
    offsets = range(-reach, reach + 1, rate)
    pixels = [(query[0] + i, query[1] + j) for i in offsets for j in offsets]
    _map(axes, theme, left, 0.6, (size, size), pixels, query)
    _label(axes, left + size / 2, 10.7, title, theme.text)
  return figure


def _border_weights(border: str) -> np.ndarray:
  """Returns the weights [K, K] of the pixel (1, 1) of an image."""
  from sasa_tf import ops

  rng = np.random.default_rng(8)
  query, key = (rng.normal(size=(1, 6, 6, 1, HEAD_DIM)).astype("float32") for _ in range(2))
  tables = [rng.normal(0, 0.3, size=(5, HEAD_DIM // 2)).astype("float32") for _ in range(2)]
  weights = ops.local_attention_weights(
    query, 0.25 * key, *tables, kernel_size=5, border=border, pixels=[[1, 1]]
  )
  return weights.numpy()[0, 0, 0]


def border(theme: Theme) -> Any:
  """The window of a query next to the border, and its weights for both values of `border`."""
  figure, axes = _canvas(37, 9.6)
  top = 1.2
  _map(axes, theme, 3, top + 1, (6, 6), [(i, j) for i in range(4) for j in range(4)], (1, 1))
  draw_outline(axes, 2, top, 5, 5, theme.query)
  _label(axes, 6, 9.1, "kernel_size=5 at the border", theme.text)
  weights = {mode: _border_weights(mode) for mode in ("zero", "mask")}
  largest = max(each.max() for each in weights.values())
  for left, mode, title in (
    (15, "zero", 'border="zero": q.r alone outside'),
    (27, "mask", 'border="mask": no weight outside'),
  ):
    _heat(axes, theme, left, top, weights[mode] / largest, size=1.2)
    draw_outline(axes, left + 1.2, top + 1.2, 4.8, 4.8, theme.muted)
    _label(axes, left + 3, top - 0.7, "weights of the window", theme.muted, 8)
    _label(axes, left + 3, 9.1, title, theme.text)
    _label(axes, left + 3, 7.9, "frame: inside the image", theme.muted, 8)
  return figure


def positions(theme: Theme) -> Any:
  """q.r as the sum of a row term and a column term."""
  rng = np.random.default_rng(5)
  rows, columns = (np.cumsum(rng.normal(0, 0.3, size=7)) for _ in range(2))
  rows, columns = rows - rows.mean(), columns - columns.mean()
  figure, axes = _canvas(37, 12.4)
  top = 3.0
  terms = (
    (2.5, np.repeat(rows[:, None], 7, axis=1), "row term", r"$q_{1} \cdot$ relative_rows"),
    (14.5, np.repeat(columns[None], 7, axis=0), "column term", r"$q_{2} \cdot$ relative_columns"),
    (26.5, rows[:, None] + columns[None], "position logits", r"$q \cdot r_{a-i,\,b-j}$"),
  )
  for left, values, title, formula in terms:
    _signed_heat(axes, theme, left, top, values)
    draw_outline(axes, left, top, 7, 7, theme.query)
    _label(axes, left + 3.5, 10.9, title, theme.text)
    _label(axes, left + 3.5, 11.8, formula, theme.muted)
    for offset in range(-3, 4):
      text = f"{offset:+d}".replace("-", "\N{MINUS SIGN}") if offset else "0"
      if left < 14 or left > 26:
        _label(axes, left - 0.7, top + offset + 3.5, text, theme.muted, 6.5)
      if left > 14:
        _label(axes, left + offset + 3.5, top - 0.6, text, theme.muted, 6.5)
  _label(axes, 6, top - 0.9, "one value per row offset", theme.muted, 8)
  _label(axes, 18, top - 1.6, "one value per column offset", theme.muted, 8)
  for x, sign in ((11.7, "+"), (23.6, "=")):
    _label(axes, x, top + 3.5, sign, theme.text, 14)
  return figure


def blocks(theme: Theme) -> Any:
  """Blocks of queries, the tile of keys of one of them, and the window within the tile."""
  figure, axes = _canvas(42, 15.4)
  shape, (rows, columns), reach = (12, 24), (4, 8), 3
  top, left, first = 0.6, 0.6, (4, 8)
  tile = [
    (i, j)
    for i in range(first[0] - reach, first[0] + rows + reach)
    for j in range(first[1] - reach, first[1] + columns + reach)
  ]
  _map(axes, theme, left, top, shape, tile)
  for i in range(0, shape[0], rows):
    for j in range(0, shape[1], columns):
      draw_outline(axes, left + j, top + i, columns, rows, theme.muted)
  corner = (left + first[1], top + first[0])
  axes.add_patch(Rectangle(corner, columns, rows, facecolor=theme.query))
  _grid(axes, theme, *corner, (rows, columns))
  _label(axes, left + 12, 13.5, "a block of 4 x 8 queries and its 10 x 14 keys", theme.text)
  _label(axes, left + 12, 14.5, "halo: the keys around the block", theme.muted, 8)
  left = 27.4
  query = (2, 5)  # in the block
  pixels = [(query[0] + i, query[1] + j) for i in range(7) for j in range(7)]
  _map(axes, theme, left, top + 1, (10, 14), pixels, (query[0] + reach, query[1] + reach))
  draw_outline(axes, left + reach, top + 1 + reach, columns, rows, theme.query)
  _label(axes, left + 7, 13.5, "one query: a mask selects its window", theme.text)
  _label(axes, left + 7, 14.5, "window_mask=False: all keys of the tile", theme.muted, 8)
  draw_arrow(axes, (24.9, top + 6), (27.1, top + 6), theme.muted)
  return figure


def _mixture_weights(mixtures: int) -> np.ndarray:
  """Returns p(a, b, m), [4, 4, M]."""
  from sasa_tf import ops

  rng = np.random.default_rng(11)
  rows, columns = (rng.normal(size=(4, HEAD_DIM)).astype("float32") for _ in range(2))
  vectors = rng.normal(0, 0.6, size=(mixtures, HEAD_DIM)).astype("float32")
  return ops.spatial_mixture_weights(rows, columns, vectors).numpy()


def stem(theme: Theme) -> Any:
  """Attention within blocks, the value mixture, and the pooling."""
  figure, axes = _canvas(42, 12.6)
  top = 1.2
  block = [(i, j) for i in range(4, 8) for j in range(4, 8)]
  _map(axes, theme, 0.6, top, (8, 12), block, (5, 6))
  for i in range(0, 8, 4):
    for j in range(0, 12, 4):
      draw_outline(axes, 0.6 + j, top + i, 4, 4, theme.muted)
  draw_outline(axes, 4.6, top + 4, 4, 4, theme.query)
  _label(axes, 6.6, 10.7, "image: a pixel attends to its block", theme.text)
  weights = _mixture_weights(4)
  for index in range(4):
    left, upper = 17.2 + 5.2 * (index % 2), 0.4 + 5.0 * (index // 2)
    _heat(axes, theme, left, upper, weights[..., index] / weights.max())
    _label(axes, left + 2, upper + 4.45, f"p(a, b, {index + 1})", theme.muted, 7)
  _label(axes, 21.8, 10.7, "values: a mixture of M matrices", theme.text)
  _label(axes, 21.8, 11.7, r"$v_{ab} = (\sum_m\, p(a, b, m)\ W_V^m)\ x_{ab}$", theme.muted)
  left = 31.6
  _map(axes, theme, left + 3.0, top + 2.5, (2, 3), [(1, 1)])
  draw_outline(axes, left + 4, top + 3.5, 1, 1, theme.query)
  _label(axes, left + 4.5, 10.7, "batch norm, max pooling", theme.text)
  _label(axes, left + 4.5, 11.7, "one output per block", theme.muted)
  draw_arrow(axes, (13.4, top + 4), (16.6, top + 4), theme.muted)
  draw_arrow(axes, (27.2, top + 4), (33.6, top + 4), theme.muted)
  return figure


FIGURES: dict[str, Callable[[Theme], Any]] = {
  figure.__name__: figure for figure in (window, border, positions, blocks, stem)
}


def main() -> None:
  """Writes all figures."""
  drawing.configure()
  for mode, theme in drawing.THEMES.items():
    for name, draw in FIGURES.items():
      drawing.save(draw(theme), DIRECTORY / f"{name}-{mode}.svg")


if __name__ == "__main__":
  main()
