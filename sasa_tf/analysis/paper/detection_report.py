"""The report on the paper's Table 2: printed and computed cost of each detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
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
from sasa_tf.reporting import Column, Table, csv_text, json_text

NUMBER = 2
_CONVENTIONS = (PRODUCTS, *CONVENTIONS.values())
_TITLES = (
  "",
  "GFLOPs printed",
  *(f"GFLOPs {convention.name}" for convention in _CONVENTIONS),
  "M parameters printed",
  "M without batch norm",
  "M parameters",
  "mAP % paper",
)
# Shorter titles in two lines, for terminals.
_TERMINAL_TITLES = (
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
  """The cost of one interpretation of a row of the paper.

  Attributes:
    row: the printed row.
    name: key of `DETECTORS`.
    cost: of the detector.
  """

  row: DetectionRow
  name: str
  cost: ModelCost

  @property
  def bare_parameters(self) -> int:
    """Number of parameters without the batch norm of pyramid and head."""
    return self.cost.parameters - batch_norm_beyond_backbone(self.cost)

  def flops(self) -> dict[str, int]:
    """Returns {convention: FLOPs}."""
    return {c.name: self.cost.in_convention(c).flops for c in _CONVENTIONS}

  def cells(self) -> list[str]:
    """Returns the cells of the columns `_TITLES`."""
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
    """Returns all numbers by name, unrounded."""
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return {
      "model": self.name,
      "config": f"coco/{self.name}.yaml",
      "interpretation": DETECTORS[self.name].interpretation,
      "flops_paper": self.row.flops,
      **{f"flops_{name}": flops for name, flops in self.flops().items()},
      "parameters_paper": self.row.parameters,
      "parameters_without_batch_norm": self.bare_parameters,
      "parameters": self.cost.parameters,
      **dict(zip(names, self.row.average_precision, strict=True)),
    }


@dataclasses.dataclass(frozen=True)
class DetectionReport:
  """The report on Table 2, a `reporting.Report`, with FLOPs in three conventions.

  Attributes:
    detectors: in the order of the paper's rows; two interpretations of rows with attention heads.
  """

  detectors: tuple[CountedDetector, ...]

  @classmethod
  def of(cls, cost_of: Callable[[str], ModelCost]) -> DetectionReport:
    """Creates the report.

    Args:
      cost_of: returns the cost of a key of `tables.DETECTORS`, in any convention.
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
    """Returns {detector: percentage of FLOPs and of parameters saved} for attention heads.

    The reference is the conv baseline; FLOPs are in the convention `PRODUCTS`.
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

  def summary(self) -> list[str]:
    """Returns the summary: savings, interpretations and conventions."""
    saved = [
      f"{DETECTORS[name].label}: -{flops:.1f} % FLOPs, -{parameters:.1f} % parameters"
      for name, (flops, parameters) in self.savings().items()
    ]
    return [
      f"Compared to the conv baseline: {'; '.join(saved)}. The paper: -{DETECTION_FLOPS_SAVED} % "
      f"and -{DETECTION_PARAMETERS_SAVED} %.",
      "According to the paper, all 3x3 convolutions of pyramid and heads become attention; its "
      "printed numbers are those of attention in the heads alone.",
      "The paper prints fewer FLOPs for full attention than for the conv stem, but more in its "
      "Table 1; no convention gives both.",
      "The paper does not mention batch norm in pyramid and heads. With a separate one per level, "
      "the parameters of attention in the heads round to the printed ones; without it they do not "
      "in every row.",
      *(f"FLOPs in the convention {c.name}: {c.summary}." for c in _CONVENTIONS),
    ]

  def _title(self) -> str:
    table = TABLES[NUMBER]
    return f"Table {NUMBER}: {table.title} at 640 pixels; mAP on {table.split}"

  def table(self) -> RenderableType:
    """Returns the table and the summary."""
    title = Text(self._title(), style="bold")
    return Group(title, self._table().to_rich(), Text(), *map(Text, self.summary()))

  def _table(self) -> Table:
    table = Table(
      [
        Column(title, "right" if title else "left", wrap=not title, terminal_title=short)
        for title, short in zip(_TITLES, _TERMINAL_TITLES, strict=True)
      ]
    )
    for counted in self.detectors:
      table.add_row(*counted.cells())
    return table

  def markdown(self) -> str:
    """Returns the table and the summary in Markdown."""
    lines = "\n".join(f"* {line}" for line in self.summary())
    return f"{self._title()}\n\n{self._table().to_markdown()}\n{lines}"

  def csv(self) -> str:
    """Returns one line per detector; printed numbers are in billions and millions."""
    return csv_text([counted.record() for counted in self.detectors])

  def json(self) -> str:
    """Returns the rows of `csv` and the savings."""
    return json_text(
      {
        "rows": [counted.record() for counted in self.detectors],
        "saves_percent": {
          name: {"flops": flops, "parameters": parameters}
          for name, (flops, parameters) in self.savings().items()
        },
      }
    )
