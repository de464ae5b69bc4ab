"""Plot of the paper's accuracies over the computed cost of the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sasa_tf.analysis.cost import ModelCost
from sasa_tf.analysis.paper.tables import MODELS, TABLES
from sasa_tf.outputs.path_checks import check_file
from sasa_tf.outputs.whole_files import writing

# Family of models -> (pattern of the names in Table 1, color).
_FAMILIES: Mapping[str, tuple[str, str]] = {
  "full attention": ("sasa_resnet{}", "#c2410c"),
  "convolutional stem, attention": ("sasa_resnet{}_conv_stem", "#1d4ed8"),
  "convolution": ("resnet{}", "#64748b"),
}
_SIZES = (26, 38, 50)
_INK = "#1f2937"


def plot_paper(cost_of: Callable[[str], ModelCost]) -> Figure:
  """Draws Table 1: printed accuracy over computed FLOPs and parameters.

  Args:
    cost_of: returns the cost of a key of `tables.MODELS`.

  Returns:
    A figure with two panels. The number in a marker is the depth of the ResNet.
  """
  accuracy = {row.model: row.accuracy for row in TABLES[1].rows}
  costs = {name: cost_of(name) for name in MODELS if name in accuracy}
  convention = costs["resnet50"].convention.name
  figure = Figure(figsize=(10, 5.2), layout="constrained")
  panels = figure.subplots(1, 2, sharey=True)
  quantities = (
    (f"FLOPs, billions per image (convention {convention})", lambda cost: cost.flops / 1e9),
    ("parameters, millions", lambda cost: cost.parameters / 1e6),
  )
  for panel, (title, quantity) in zip(panels, quantities, strict=True):
    for family, (pattern, color) in _FAMILIES.items():
      names = [pattern.format(size) for size in _SIZES]
      points = [(quantity(costs[name]), accuracy[name]) for name in names]
      _draw_family(panel, points, family, color)
    _decorate(panel, title)
  panels[0].set_ylabel("ImageNet top-1, % (the paper's)", color=_INK)
  panels[0].legend(loc="lower right", frameon=False, labelcolor=_INK, fontsize=9.5)
  figure.suptitle(
    "ResNet-26, 38 and 50: accuracy in the paper over the cost of the models in sasa_tf",
    color=_INK,
    fontsize=12.5,
  )
  return figure


def _draw_family(panel: Axes, points: list[tuple[float, float]], family: str, color: str) -> None:
  x, y = zip(*points, strict=True)
  panel.plot(
    x,
    y,
    color=color,
    label=family,
    linewidth=1.8,
    marker="o",
    markersize=14,
    markeredgecolor="white",
    markeredgewidth=1.2,
  )
  for size, point in zip(_SIZES, points, strict=True):
    panel.annotate(
      str(size),
      point,
      ha="center",
      va="center_baseline",
      color="white",
      fontsize=7.5,
      weight="bold",
    )


def _decorate(panel: Axes, title: str) -> None:
  panel.set_xlabel(title, color=_INK)
  panel.margins(0.09)
  panel.grid(color="#e5e7eb", linewidth=0.8)
  panel.set_axisbelow(True)
  panel.tick_params(colors=_INK, length=0)
  panel.spines[:].set_visible(False)


def save_plot(figure: Figure, path: str, *, overwrite: bool = False) -> None:
  """Writes a figure as PNG.

  Args:
    figure: to write.
    path: of the image file.
    overwrite: whether to replace an existing PNG file.

  Raises:
    UserError: the file exists or cannot be written.
  """
  target = check_file(path, "plot", overwrite=overwrite)
  with writing(target) as file:
    figure.savefig(file, format="png", dpi=160)
