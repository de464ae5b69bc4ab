"""Colors and axes of plots. Imports no matplotlib."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

# Wong's palette, which is safe for color blindness.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
BASELINE_COLOR = "#777777"
INK = "#333333"


def plain_labels(draw: Callable[..., Any]) -> Callable[..., Any]:
  """Decorates a function that draws: a "$" in a name begins no formula, which may be invalid."""

  @functools.wraps(draw)
  def wrapped(*arguments: Any, **options: Any) -> Any:
    try:
      import matplotlib
    except ImportError:  # `draw` reports it
      return draw(*arguments, **options)
    with matplotlib.rc_context({"text.parse_math": False}):
      return draw(*arguments, **options)

  return wrapped


def finish_axes(axes: Any, grid: str = "both") -> None:
  """Adds a light grid below the data, and removes the frame at the top and at the right.

  Args:
    axes: matplotlib axes.
    grid: the axis with grid lines, "x", "y" or "both".
  """
  axes.grid(axis=grid, color="#e0e0e0")
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)


def png_bytes(plot: Any) -> bytes:
  """Returns a matplotlib figure as a PNG file."""
  stream = io.BytesIO()
  plot.savefig(stream, format="png")
  return stream.getvalue()
