"""The report on what one model costs."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sasa_tf.analysis.cost import CONVENTIONS, LayerCost, ModelCost
from sasa_tf.analysis.cost.graph_profile import GraphProfile
from sasa_tf.analysis.report_formats import csv_text, json_text, markdown_table

# What a line of the table is about.
LEVELS = ("layer", "block", "group")

_TITLES = ("layer", "type", "output", "parameters", "MFLOPs", "MB")


@dataclasses.dataclass(frozen=True)
class _Line:
  """One line of the table: some calls of layers and what they cost together."""

  name: str
  layers: tuple[LayerCost, ...]

  def _sum(self, attribute: str) -> int:
    return sum(getattr(layer, attribute) for layer in self.layers if layer.known)

  def cells(self) -> list[str]:
    """Returns the texts of the columns of `_TITLES`."""
    first, last = self.layers[0], self.layers[-1]
    kind = first.type if len(self.layers) == 1 else f"{len(self.layers)} layers"
    known = [layer for layer in self.layers if layer.known]
    numbers = [f"{self._sum('flops') / 1e6:,.1f}", f"{self._sum('bytes') / 1e6:,.1f}"]
    if len(known) < len(self.layers):
      numbers = [f"> {number}" for number in numbers] if known else ["unknown", "unknown"]
    return [
      self.name,
      kind,
      "x".join(map(str, last.output_shape)),
      f"{sum(layer.parameters for layer in self.layers):,}",
      *numbers,
    ]


def _group(name: str) -> str:
  """Returns what a layer's name has in common with its neighbours': all before the first _."""
  return re.match(r"(.*/)?[^_]*", name)[0]


def _block(name: str) -> str:
  """Returns the block that a layer belongs to, otherwise its group."""
  block = re.match(r"(.*/)?group\d+_block\d+", name)
  return block[0] if block else _group(name)


def _runs(layers: Iterable[LayerCost], key: Any) -> Iterator[_Line]:
  for name, run in itertools.groupby(layers, key=lambda layer: key(layer.name)):
    yield _Line(name, tuple(run))


def _sections(cost: ModelCost, by: str) -> Iterator[tuple[_Line, list[_Line]]]:
  """Yields (group, its lines); no lines for what says all about itself."""
  for group in _runs(cost.layers, _group):
    if by == "layer":
      lines = [_Line(layer.name, (layer,)) for layer in group.layers]
    else:
      lines = list(_runs(group.layers, _block)) if by == "block" else []
    if len(lines) > 1:
      shorter = (line.name.removeprefix(f"{group.name}_").rpartition("/")[2] for line in lines)
      yield group, [_Line(name, line.layers) for name, line in zip(shorter, lines, strict=True)]
    elif len(group.layers) == 1:
      yield _Line(group.layers[0].name, group.layers), []
    else:
      yield group, []


def _style(line: _Line) -> str | None:
  return None if all(layer.known for layer in line.layers) else "red"


def _billions(number: int) -> str:
  """Returns a number with its unit: "7.241 G" or, if small, "0.412 M"."""
  return f"{number / 1e9:.3f} G" if number >= 1e8 else f"{number / 1e6:.3f} M"


@dataclasses.dataclass(frozen=True)
class CostReport:
  """The report on a model, see `writing.Report`.

  Attributes:
    cost: of the model.
    by: one of `LEVELS`, what a line of a table is about. CSV and JSON are always by layer.
    profile: the figure of TensorFlow's profiler, if wanted.
  """

  cost: ModelCost
  by: str = "layer"
  profile: GraphProfile | None = None

  def _flops(self, part: LayerCost | ModelCost) -> dict[str, int | None]:
    """Returns {convention: FLOPs} of a layer or of the model."""
    conventions = {**CONVENTIONS, self.cost.convention.name: self.cost.convention}
    if isinstance(part, ModelCost):
      return {name: part.in_convention(c).flops for name, c in conventions.items()}
    return {name: c.flops(part.work) if part.known else None for name, c in conventions.items()}

  def summary(self) -> list[tuple[str, str]]:
    """Returns [(what, figure)] of the model as a whole."""
    cost = self.cost
    least = "more than " if cost.unknown else ""
    others = [(name, n) for name, n in self._flops(cost).items() if name != cost.convention.name]
    flops = [(cost.convention.name, cost.flops), *others]
    lines = [
      ("parameters", f"{cost.parameters:,}, and {cost.statistics:,} moving statistics"),
      *((f"FLOPs, {name}", f"{least}{_billions(n)} an image") for name, n in flops),
      (
        "memory traffic",
        f"{least}{cost.bytes / 1e6:,.1f} MB a batch of {cost.batch_size} in {cost.dtype}, "
        f"{cost.weight_bytes / 1e6:,.1f} MB of it weights",
      ),
    ]
    if cost.unknown:
      names = ", ".join(f"{layer.name} ({layer.type})" for layer in cost.unknown)
      lines.append(
        (
          "unknown",
          f"{names}: no rule for such layers, so their FLOPs and bytes are in no sum. "
          "sasa_tf.analysis.layer_rule enters one.",
        )
      )
    if self.profile:
      lines.append(("Model Garden's profiler", self._profile_text()))
    return lines

  def _profile_text(self) -> str:
    profile = self.profile
    text = (
      f"{_billions(profile.flops)} an image, of the implementation that runs here, with what it "
      "wastes"
    )
    if profile.uncounted:
      kinds = ", ".join(f"{count} {kind}" for kind, count in profile.uncounted.items())
      text += f"; not counted: {kinds}"
    if profile.loops:
      loops = "1 loop" if profile.loops == 1 else f"{profile.loops} loops"
      text += f"; the bodies of {loops} counted as if they ran once"
    return f"{text}."

  def _title(self) -> str:
    shapes = " and ".join("x".join(map(str, shape)) for shape in self.cost.input_shapes)
    return f"{self.cost.model} on {shapes}, FLOPs of the convention {self.cost.convention.name}"

  def table(self) -> RenderableType:
    """Returns a table of groups with their layers or blocks, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for title in _TITLES:
      table.add_column(
        self.by if title == "layer" else title,
        justify="left" if title in _TITLES[:3] else "right",
        overflow="ellipsis",
        no_wrap=title != "type",  # the first to give way in a narrow terminal
      )
    for group, lines in _sections(self.cost, self.by):
      if lines:
        table.add_section()
      table.add_row(*group.cells(), style="bold" if lines else _style(group))
      for line in lines:
        name, *cells = line.cells()
        table.add_row(f"  {name}", *cells, style=_style(line))
      if lines:
        table.add_section()
    totals = Table(box=None, pad_edge=False, show_header=False)
    totals.add_column(no_wrap=True, style="bold")
    totals.add_column()
    for what, figure in self.summary():
      totals.add_row(what, Text(figure, style="red" if what == "unknown" else ""))
    return Group(Text(self._title(), style="bold"), table, Text(), totals)

  def markdown(self) -> str:
    """Returns the same as `table`."""
    rows = []
    for group, lines in _sections(self.cost, self.by):
      rows.append([f"**{cell}**" if lines else cell for cell in group.cells()])
      rows += [line.cells() for line in lines]
    totals = "".join(f"* {what}: {figure}\n" for what, figure in self.summary())
    return f"{self._title()}\n\n{markdown_table((self.by, *_TITLES[1:]), rows)}\n{totals}"

  def _records(self, flatten: bool) -> list[dict[str, Any]]:
    records = []
    for layer in self.cost.layers:
      flops = self._flops(layer)
      record = {
        "name": layer.name,
        "type": layer.type,
        "output_shape": list(layer.output_shape),
        "known": layer.known,
        "parameters": layer.parameters,
        "statistics": layer.statistics,
        "flops": flops,
        "activation_bytes": layer.activation_bytes,
        "weight_bytes": layer.weight_bytes,
      }
      if flatten:
        record["output_shape"] = "x".join(map(str, layer.output_shape))
        del record["flops"]
        record |= {f"flops_{name}": n for name, n in flops.items()}
      records.append(record)
    return records

  def csv(self) -> str:
    """Returns a line a layer."""
    return csv_text(self._records(flatten=True))

  def json(self) -> str:
    """Returns the model's figures and a list of its layers'."""
    cost = self.cost
    return json_text(
      {
        "model": cost.model,
        "input_shapes": [list(shape) for shape in cost.input_shapes],
        "batch_size": cost.batch_size,
        "dtype": cost.dtype,
        "parameters": cost.parameters,
        "statistics": cost.statistics,
        "flops": self._flops(cost),
        "activation_bytes": cost.activation_bytes,
        "weight_bytes": cost.weight_bytes,
        "unknown": [layer.name for layer in cost.unknown],
        "profiler": dataclasses.asdict(self.profile) if self.profile else None,
        "layers": self._records(flatten=False),
      }
    )
