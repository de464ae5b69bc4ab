"""The report on the cost of one model."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import rich.table
from rich.console import Group, RenderableType
from rich.text import Text

from sasa_tf.analysis.cost import CONVENTIONS, LayerCost, ModelCost
from sasa_tf.analysis.cost.graph_profile import GraphProfile
from sasa_tf.reporting import Column, Table, csv_text, json_text

# What a row of the table summarizes.
LEVELS = ("layer", "block", "group")

_TITLES = ("layer", "type", "output", "parameters", "MFLOPs", "MB")


@dataclasses.dataclass(frozen=True)
class _Row:
  """A row of the table: consecutive layer calls and their total cost."""

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


def _stage(name: str) -> str:
  """Returns the stage of a layer, the part of its name before the first underscore."""
  return re.match(r"(.*/)?[^_]*", name)[0]


def _block(name: str) -> str:
  """Returns the block of a layer, or its stage if it is in no block."""
  block = re.match(r"(.*/)?group\d+_block\d+", name)
  return block[0] if block else _stage(name)


def _runs(layers: Iterable[LayerCost], key: Any) -> Iterator[_Row]:
  for name, run in itertools.groupby(layers, key=lambda layer: key(layer.name)):
    yield _Row(name, tuple(run))


def _sections(cost: ModelCost, by: str) -> Iterator[tuple[_Row, list[_Row]]]:
  """Yields (stage, its rows); no rows if the stage has only one."""
  for stage in _runs(cost.layers, _stage):
    if by == "layer":
      rows = [_Row(layer.name, (layer,)) for layer in stage.layers]
    else:
      rows = list(_runs(stage.layers, _block)) if by == "block" else []
    if len(rows) > 1:
      short_names = (row.name.removeprefix(f"{stage.name}_").rpartition("/")[2] for row in rows)
      yield stage, [_Row(name, row.layers) for name, row in zip(short_names, rows, strict=True)]
    elif len(stage.layers) == 1:
      yield _Row(stage.layers[0].name, stage.layers), []
    else:
      yield stage, []


def _style(row: _Row) -> str | None:
  return None if all(layer.known for layer in row.layers) else "red"


def _billions(number: int) -> str:
  """Returns a number with its unit, "7.241 G" or "0.412 M"."""
  return f"{number / 1e9:.3f} G" if number >= 1e8 else f"{number / 1e6:.3f} M"


@dataclasses.dataclass(frozen=True)
class CostReport:
  """The report on a model, a `reporting.Report`.

  Attributes:
    cost: of the model.
    by: one of `LEVELS`, what a row of the table summarizes. CSV and JSON are always by layer.
    profile: counts of TensorFlow's profiler to include, or None.
  """

  cost: ModelCost
  by: str = "layer"
  profile: GraphProfile | None = None

  def _flops(self, part: LayerCost | ModelCost) -> dict[str, int | None]:
    """Returns {convention: FLOPs} of a layer or of the model."""
    conventions = {**CONVENTIONS, self.cost.convention.name: self.cost.convention}
    if isinstance(part, ModelCost):
      return {name: part.in_convention(c).flops for name, c in conventions.items()}
    return {
      name: c.flops(part.op_counts) if part.known else None for name, c in conventions.items()
    }

  def summary(self) -> list[tuple[str, str]]:
    """Returns [(quantity, value)] of the model in total."""
    cost = self.cost
    least = "more than " if cost.unknown else ""
    others = [(name, n) for name, n in self._flops(cost).items() if name != cost.convention.name]
    flops = [(cost.convention.name, cost.flops), *others]
    lines = [
      (
        "parameters",
        f"{cost.parameters:,}, and {cost.non_trainable_parameters:,} non-trainable",
      ),
      *((f"FLOPs, {name}", f"{least}{_billions(n)} per image") for name, n in flops),
      (
        "memory traffic",
        f"{least}{cost.bytes / 1e6:,.1f} MB per batch of {cost.batch_size} in {cost.dtype}, "
        f"including {cost.weight_bytes / 1e6:,.1f} MB of weights",
      ),
    ]
    if cost.unknown:
      names = ", ".join(f"{layer.name} ({layer.type})" for layer in cost.unknown)
      lines.append(
        (
          "unknown",
          f"{names}: these layers have no rule, so the sums do not include their FLOPs and bytes. "
          "Register rules with sasa_tf.analysis.layer_rule.",
        )
      )
    if self.profile:
      lines.append(("Model Garden's profiler", self._profile_text()))
    return lines

  def _profile_text(self) -> str:
    profile = self.profile
    text = (
      f"{_billions(profile.flops)} per image for the implementation that runs here, including its "
      "redundant operations"
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
    return f"{self.cost.model} on {shapes}, FLOPs in the convention {self.cost.convention.name}"

  def table(self) -> RenderableType:
    """Returns a table of stages with their layers or blocks, and the totals."""
    totals = rich.table.Table(box=None, pad_edge=False, show_header=False)
    totals.add_column(no_wrap=True, style="bold")
    totals.add_column()
    for quantity, value in self.summary():
      totals.add_row(quantity, Text(value, style="red" if quantity == "unknown" else ""))
    return Group(Text(self._title(), style="bold"), self._table().to_rich(), Text(), totals)

  def _table(self) -> Table:
    columns = [
      Column(
        self.by if title == "layer" else title,
        "left" if title in _TITLES[:3] else "right",
        wrap=title == "type",
      )
      for title in _TITLES
    ]
    table = Table(columns)
    for stage, rows in _sections(self.cost, self.by):
      if rows:
        table.add_section()
      table.add_row(*stage.cells(), style="bold" if rows else _style(stage))
      for row in rows:
        name, *cells = row.cells()
        table.add_row(f"  {name}", *cells, style=_style(row))
      if rows:
        table.add_section()
    return table

  def markdown(self) -> str:
    """Returns the table and the totals in Markdown."""
    totals = "".join(f"* {quantity}: {value}\n" for quantity, value in self.summary())
    return f"{self._title()}\n\n{self._table().to_markdown()}\n{totals}"

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
        "non_trainable_parameters": layer.non_trainable_parameters,
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
    """Returns one line per layer call."""
    return csv_text(self._records(flatten=True))

  def json(self) -> str:
    """Returns the totals and a list of the layer calls."""
    cost = self.cost
    return json_text(
      {
        "model": cost.model,
        "input_shapes": [list(shape) for shape in cost.input_shapes],
        "batch_size": cost.batch_size,
        "dtype": cost.dtype,
        "parameters": cost.parameters,
        "non_trainable_parameters": cost.non_trainable_parameters,
        "flops": self._flops(cost),
        "activation_bytes": cost.activation_bytes,
        "weight_bytes": cost.weight_bytes,
        "unknown": [layer.name for layer in cost.unknown],
        "profiler": dataclasses.asdict(self.profile) if self.profile else None,
        "layers": self._records(flatten=False),
      }
    )
