"""Plot of results: a panel for each setting, with a bar for each candidate."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sasa_tf.benchmarks.results.records import Measurement
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_file
from sasa_tf.outputs.whole_files import writing
from sasa_tf.reporting.plot_style import plain_labels

# Wong's palette, which is safe for color blindness. The convolution is gray.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_CONVOLUTION_COLOR = "#999999"
_INK = "#333333"


def _panel(case: Case) -> Case:
  """Returns the part of the case that is equal for all bars of a panel."""
  return dataclasses.replace(case.group, batch_size=0, shape=(0, 0, 0))


def _title(case: Case) -> str:
  name = case.target if case.model_id is None else f"ResNet-{case.model_id}"
  return f"{name}, {case.work}, {case.dtype}, {'XLA' if case.jit else 'no XLA'}"


def _colors(names: Sequence[str]) -> dict[str, str]:
  others = [name for name in names if not name.startswith("conv") or "+" in name]
  chosen = {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(others)}
  return {name: chosen.get(name, _CONVOLUTION_COLOR) for name in names}


def _label(value: float) -> str:
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _draw(axes: Any, rows: Sequence[Measurement], colors: dict[str, str], memory: bool) -> None:
  """Draws the peak memory, or the time (images/s for models)."""
  groups = list(dict.fromkeys((m.case.batch_size, m.case.size) for m in rows))
  names = [name for name in colors if any(m.case.candidate == name for m in rows)]
  width = 0.84 / len(names)
  model = rows[0].case.target == "model"
  values = []
  for measurement in rows:
    case = measurement.case
    position = groups.index((case.batch_size, case.size))
    x = position + (names.index(case.candidate) - (len(names) - 1) / 2) * width
    value = error = None
    if memory and measurement.peak_bytes is not None:
      value = measurement.peak_bytes / 2**20
    elif not memory and measurement.seconds:
      value, low, high = (1e3 * seconds for seconds in measurement.summary)
      if model:
        value, low, high = (1e3 * case.batch_size / time for time in (value, high, low))
      error = [[value - low], [high - value]]
    if value is None:
      text = "failed" if not measurement.seconds else "n/a"
      axes.annotate(
        text, (x, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="center", color=_INK
      )
      continue
    values.append(value)
    axes.bar(
      x, value, 0.92 * width, color=colors[case.candidate], yerr=error, ecolor=_INK, capsize=2
    )
    axes.annotate(
      _label(value),
      (x, value if error is None else high),
      xytext=(0, 3),
      textcoords="offset points",
      ha="center",
      fontsize=7,
      color=_INK,
    )
  same_batch = len({batch for batch, _ in groups}) == 1
  labels = [size if same_batch else f"{size}\nbatch {batch}" for batch, size in groups]
  axes.set_xticks(range(len(groups)), [label.replace("x", " x ") for label in labels])
  axes.tick_params(axis="x", length=0)
  if memory:
    axes.set_ylabel("peak memory, MiB")
  else:
    axes.set_ylabel("images per second" if model else "milliseconds per step")
  if model:
    axes.margins(y=0.12)
  elif values:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter("")
    # The axis begins at a power of ten and leaves space for the labels above the bars.
    axes.set_ylim(10 ** math.floor(math.log10(0.9 * min(values))), 2 * max(values))
  axes.set_xlim(-0.5, len(groups) - 0.5)
  axes.grid(axis="y", color="#e0e0e0")
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  title = _title(rows[0].case)
  axes.set_title(f"{title}, batch {groups[0][0]}" if same_batch else title, fontsize=10)


def check_plot(path: str, overwrite: bool) -> pathlib.Path:
  """Checks that a plot can be written, before anything is measured, and returns its path.

  Args:
    path: of the image file.
    overwrite: whether to replace an existing file.

  Raises:
    UserError: matplotlib is not installed or does not support the extension, or the file exists or
      cannot be written.
  """
  if importlib.util.find_spec("matplotlib") is None:
    raise UserError(
      "--plot needs matplotlib, which is not installed. Run `pip install 'sasa_tf[report]'`, or "
      "plot the results of --output on another machine with --show=FILE.jsonl --plot=FILE.png."
    )
  from matplotlib.backend_bases import FigureCanvasBase

  supported = FigureCanvasBase.get_supported_filetypes()
  if pathlib.Path(path).suffix.removeprefix(".").lower() not in supported:
    raise UserError(
      f"--plot={path}: expected a file name that ends with one of .{', .'.join(sorted(supported))}."
    )
  return check_file(path, "plot", overwrite=overwrite)


def _heading(environment: Mapping[str, Any]) -> str:
  if not environment:
    return "median and quartiles"
  machine = environment["device"] if environment["cuda"] else environment["machine"]
  return (
    f"sasa_tf {environment['sasa_tf']} on {machine}, {environment['cores']} cores, TensorFlow "
    f"{environment['packages'].get('tensorflow')}, {environment['timestamp'][:10]}; median and "
    "quartiles"
  )


@plain_labels
def save_plot(measurements: Sequence[Measurement], path: str, *, overwrite: bool = False) -> None:
  """Writes a plot.

  Args:
    measurements: of any cases.
    path: of the image file, .png or another extension that matplotlib supports.
    overwrite: whether to replace an existing file.

  Raises:
    UserError: matplotlib is not installed or does not support the extension, or the file exists or
      cannot be written.
  """
  target = check_plot(path, overwrite)
  from matplotlib import figure, patches

  panels: dict[Case, list[Measurement]] = {}
  for measurement in measurements:
    panels.setdefault(_panel(measurement.case), []).append(measurement)
  colors = _colors(list(dict.fromkeys(m.case.candidate for m in measurements)))
  kinds = [False, True] if any(m.peak_bytes for m in measurements) else [False]
  image = figure.Figure(
    figsize=(1.5 + 6.5 * len(kinds), 1.2 + 3.4 * len(panels)), layout="constrained", dpi=120
  )
  grid = image.subplots(len(panels), len(kinds), squeeze=False)
  for row, rows in zip(grid, panels.values(), strict=True):
    for axes, memory in zip(row, kinds, strict=True):
      _draw(axes, rows, colors, memory)
  image.suptitle(_heading(measurements[-1].environment), fontsize=10)
  handles = [patches.Patch(color=color, label=name) for name, color in colors.items()]
  image.legend(
    handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False
  )
  with writing(target) as file:
    image.savefig(file)
