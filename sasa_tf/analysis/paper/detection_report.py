"""The report on the paper's Table 2: each detector as printed, and as counted here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sasa_tf.analysis.cost import CONVENTIONS, ModelCost
from sasa_tf.analysis.paper.detectors import PRODUCTS, batch_norm_beyond_backbone
from sasa_tf.analysis.paper.tables import (
  DETECTION_FLOPS_SAVED,
  DETECTION_PARAMETERS_SAVED,
  DETECTORS,
  TABLES,
  DetectionRow,
)
from sasa_tf.analysis.report_formats import csv_text, json_text, markdown_table

NUMBER = 2
_CONVENTIONS = (PRODUCTS, *CONVENTIONS.values())
_TITLES = (
  "",
  "GFLOPs paper",
  *(f"GFLOPs {convention.name}" for convention in _CONVENTIONS),
  "M parameters paper",
  "M without batch norm",
  "M parameters",
  "mAP % paper",
)
# The same in two lines, for a terminal.
_HEADERS = (
  "",
  "GFLOPs\nprinted",
  *(f"\n{convention.name}" for convention in _CONVENTIONS),
  "M par.\nprinted",
  "without\nBN",
  "\nall",
  "mAP\n%",
)


@dataclasses.dataclass(frozen=True)
class CountedDetector:
  """A reading of a row of the paper, counted.

  Attributes:
    row: as the paper has it.
    name: key of `DETECTORS`.
    cost: of the detector.
  """

  row: DetectionRow
  name: str
  cost: ModelCost

  @property
  def bare_parameters(self) -> int:
    """Parameters without the batch norm of pyramid and head."""
    return self.cost.parameters - batch_norm_beyond_backbone(self.cost)

  def flops(self) -> dict[str, int]:
    """Returns {convention: FLOPs}."""
    return {c.name: self.cost.in_convention(c).flops for c in _CONVENTIONS}

  def cells(self) -> list[str]:
    """Returns the texts of the columns of `_TITLES`."""
    return [
      DETECTORS[self.name].label,
      f"{self.row.flops:.0f}",
      *(f"{flops / 1e9:.1f}" for flops in self.flops().values()),
      f"{self.row.parameters:.1f}",
      f"{self.bare_parameters / 1e6:.2f}",
      f"{self.cost.parameters / 1e6:.2f}",
      f"{self.row.average_precision[0]:.1f}",
    ]

  def record(self) -> dict[str, Any]:
    """Returns the figures by name, as printed and in full."""
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return {
      "model": self.name,
      "config": f"coco/{self.name}.yaml",
      "reading": DETECTORS[self.name].reading,
      "flops_paper": self.row.flops,
      **{f"flops_{name}": flops for name, flops in self.flops().items()},
      "parameters_paper": self.row.parameters,
      "parameters_without_batch_norm": self.bare_parameters,
      "parameters": self.cost.parameters,
      **dict(zip(names, self.row.average_precision, strict=True)),
    }


@dataclasses.dataclass(frozen=True)
class DetectionReport:
  """The report on Table 2, see `writing.Report`. Its FLOPs are in three conventions.

  Attributes:
    detectors: in the order of the paper's rows; rows with attention in two readings.
  """

  detectors: tuple[CountedDetector, ...]

  @classmethod
  def of(cls, cost_of: Callable[[str], ModelCost]) -> DetectionReport:
    """Counts the detectors.

    Args:
      cost_of: from a key of `paper_tables.DETECTORS` to its cost, in any convention.
    """
    return cls(
      tuple(
        CountedDetector(row, name, cost_of(name))
        for row in TABLES[NUMBER].rows
        for name, detector in DETECTORS.items()
        if (detector.backbone, detector.heads) == (row.model, row.heads)
      )
    )

  def savings(self) -> dict[str, tuple[float, float]]:
    """Returns {detector: per cent of FLOPs and parameters saved} of those with attention heads.

    Against the conv baseline, FLOPs by `PRODUCTS`.
    """

    def both(counted):
      return counted.cost.in_convention(PRODUCTS).flops, counted.cost.parameters

    baseline, *others = self.detectors
    return {
      counted.name: tuple(
        100 * (1 - ours / conv) for ours, conv in zip(both(counted), both(baseline), strict=True)
      )
      for counted in others
      if counted.row.heads == "attention"
    }

  def headline(self) -> list[str]:
    """Returns the sentences of the end: savings, readings and conventions."""
    saved = [
      f"{DETECTORS[name].label}: -{flops:.1f} % FLOPs, -{parameters:.1f} % parameters"
      for name, (flops, parameters) in self.savings().items()
    ]
    return [
      f"Against the conv baseline {'; '.join(saved)}. The paper says -{DETECTION_FLOPS_SAVED} % "
      f"and -{DETECTION_PARAMETERS_SAVED} %.",
      "The paper says that all 3x3 convolutions of pyramid and heads become attention; its printed "
      "figures are those of attention in the heads alone.",
      "It prints fewer FLOPs for full attention than for the conv stem, where its Table 1 has "
      "more; no convention gives both.",
      "The paper does not mention batch norm in pyramid and heads. With it, each level having its "
      "own, the parameters of that reading round to what the paper prints; without it they do not "
      "in every row.",
      *(f"FLOPs of the convention {c.name}: {c.summary}." for c in _CONVENTIONS),
    ]

  def _title(self) -> str:
    table = TABLES[NUMBER]
    return f"Table {NUMBER}: {table.title} at 640 pixels; mAP on {table.split}"

  def table(self) -> RenderableType:
    """Returns the table and the headline."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for number, name in enumerate(_HEADERS):
      table.add_column(name, justify="right" if number else "left", no_wrap=bool(number))
    for counted in self.detectors:
      table.add_row(*counted.cells())
    title = Text(self._title(), style="bold")
    return Group(title, table, Text(), *map(Text, self.headline()))

  def markdown(self) -> str:
    """Returns the same as `table`."""
    rows = [counted.cells() for counted in self.detectors]
    lines = "\n".join(f"* {line}" for line in self.headline())
    return f"{self._title()}\n\n{markdown_table(_TITLES, rows)}\n{lines}"

  def csv(self) -> str:
    """Returns a line a detector; FLOPs and parameters as printed in billions and millions."""
    return csv_text([counted.record() for counted in self.detectors])

  def json(self) -> str:
    """Returns the detectors, as in `csv`, and what they save."""
    return json_text(
      {
        "rows": [counted.record() for counted in self.detectors],
        "saves_percent": {
          name: {"flops": flops, "parameters": parameters}
          for name, (flops, parameters) in self.savings().items()
        },
      }
    )
