"""The report on the paper's tables: printed cost, computed cost and their difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sasa_tf.analysis.cost import Convention, ModelCost, find_convention
from sasa_tf.analysis.paper.tables import (
  FLOPS_SAVED,
  MODELS,
  PARAMETERS_SAVED,
  TABLES,
  PaperTable,
  Row,
)
from sasa_tf.errors import UserError
from sasa_tf.reporting import Column, Table, csv_text, json_text

_DETECTION = 2
CLASSIFICATION = tuple(number for number in TABLES if number != _DETECTION)

_TITLES = (
  "",
  "GFLOPs paper",
  "GFLOPs ours",
  "difference",
  "M parameters paper",
  "M parameters ours",
  "difference",
  "top-1 % paper",
)
# Shorter titles in two lines, for terminals.
_TERMINAL_TITLES = (
  "",
  "GFLOPs\npaper",
  "\nours",
  "\ndiff.",
  "M par.\npaper",
  "\nours",
  "\ndiff.",
  "top1\n%",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A number of the paper and the computed one.

  Attributes:
    paper: as printed, with one decimal; None if the paper has none.
    ours: the computed number, in the same unit.
    note: why the rounded numbers differ; "" if they do not.
  """

  paper: float | None
  ours: float
  note: str = ""

  @property
  def difference(self) -> float | None:
    """Computed minus printed number."""
    return None if self.paper is None else self.ours - self.paper

  @property
  def differs(self) -> bool:
    """Whether the rounded computed number differs from the printed one."""
    return self.paper is not None and f"{self.ours:.1f}" != f"{self.paper:.1f}"

  def cells(self) -> list[str]:
    """Returns the cells of the printed and the computed number and of the difference."""
    ours = f"{self.ours:.3f}{'*' if self.differs else ' '}"
    if self.paper is None:
      return ["", ours, ""]
    return [f"{self.paper:.1f}", ours, f"{self.difference:+.3f}"]


@dataclasses.dataclass(frozen=True)
class ComparedRow:
  """A row of the paper and the computed cost.

  Attributes:
    table: the table of the row.
    row: the printed row.
    flops: in billions.
    parameters: in millions.
  """

  table: PaperTable
  row: Row
  flops: Comparison
  parameters: Comparison


def compare(row: Row, table: PaperTable, cost: ModelCost) -> ComparedRow:
  """Compares a row of the paper to the computed cost of its model."""

  def comparison(quantity, paper, ours):
    found = Comparison(paper, ours)
    if not found.differs:
      return found
    fallback = f"the convention {cost.convention.name} differs from the paper's way of counting"
    fitted = quantity == "parameters" or cost.convention.name == "paper"
    note = row.notes.get(quantity, "") if fitted else fallback
    return dataclasses.replace(found, note=note)

  return ComparedRow(
    table,
    row,
    comparison("flops", row.flops, cost.flops / 1e9),
    comparison("parameters", row.parameters, cost.parameters / 1e6),
  )


def check_numbers(numbers: Iterable[int]) -> tuple[int, ...]:
  """Returns the table numbers without duplicates.

  Raises:
    UserError: a table does not exist, or is the one of detectors.
  """
  numbers = tuple(dict.fromkeys(numbers))
  unknown = [number for number in numbers if number not in TABLES]
  if unknown or not numbers:
    raise UserError(
      f"expected numbers of the paper's tables, some of {', '.join(map(str, CLASSIFICATION))}; "
      f"received {', '.join(map(str, unknown)) or 'none'}."
    )
  if _DETECTION in numbers:
    raise UserError(
      f"Table {_DETECTION} is about detectors ({TABLES[_DETECTION].title}) and has other columns: "
      f"request it alone with --paper_tables={_DETECTION}, without --plot."
    )
  return numbers


@dataclasses.dataclass(frozen=True)
class PaperReport:
  """The report on tables of classifiers, a `reporting.Report`.

  Attributes:
    rows: rows of all tables, in order.
    convention: for the computed FLOPs.
    conv: cost of ResNet-50 with convolutions.
    attention: cost of ResNet-50 with full attention.
  """

  rows: tuple[ComparedRow, ...]
  convention: Convention
  conv: ModelCost
  attention: ModelCost

  @classmethod
  def of(
    cls,
    numbers: Sequence[int],
    cost_of: Callable[[str], ModelCost],
    convention: str | Convention = "paper",
  ) -> PaperReport:
    """Creates the report on some tables.

    Args:
      numbers: numbers of the tables, see `check_numbers`.
      cost_of: returns the cost of a key of `tables.MODELS`, in any convention.
      convention: for the FLOPs of the report.
    """
    convention = find_convention(convention)
    tables = [TABLES[number] for number in check_numbers(numbers)]
    rows = tuple(
      compare(row, table, cost_of(row.model).in_convention(convention))
      for table in tables
      for row in table.rows
    )
    ends = (cost_of(name).in_convention(convention) for name in ("resnet50", "sasa_resnet50"))
    return cls(rows, convention, *ends)

  def models(self) -> list[str]:
    """Returns the keys of `MODELS` in the report, in the order of `MODELS`."""
    return [name for name in MODELS if name in {compared.row.model for compared in self.rows}]

  def savings(self) -> tuple[float, float]:
    """Returns the percentage of FLOPs and of parameters that full attention saves."""
    pairs = (
      (self.attention.flops, self.conv.flops),
      (self.attention.parameters, self.conv.parameters),
    )
    return tuple(100 * (1 - ours / baseline) for ours, baseline in pairs)

  def summary(self) -> list[str]:
    """Returns the agreement of all rows and the percentages of the abstract."""
    lines = []
    for quantity, unit in (("flops", "G"), ("parameters", "M")):
      pairs = [getattr(row, quantity) for row in self.rows]
      pairs = [pair for pair in pairs if pair.paper is not None]
      if pairs:
        name = "FLOPs" if quantity == "flops" else quantity
        agree = sum(not pair.differs for pair in pairs)
        largest = max(abs(pair.difference) for pair in pairs)
        lines.append(
          f"{name}: {agree} of {len(pairs)} rows agree to the printed digit; largest difference "
          f"{largest:.3f} {unit}."
        )
    flops, parameters = self.savings()
    lines.append(
      "ResNet-50, full attention compared to convolution: "
      f"{-flops:+.1f} % FLOPs ({self.attention.flops / 1e9:.3f} and "
      f"{self.conv.flops / 1e9:.3f} G), {-parameters:+.1f} % parameters "
      f"({self.attention.parameters:,} and {self.conv.parameters:,}); "
      f"the paper: -{FLOPS_SAVED} % and -{PARAMETERS_SAVED} %."
    )
    lines.append(f"FLOPs in the convention {self.convention.name}: {self.convention.summary}.")
    return lines

  def _sections(self) -> Iterator[tuple[str, list[ComparedRow], list[str]]]:
    """Yields (title, rows, notes) of each table."""
    for number in dict.fromkeys(compared.table.number for compared in self.rows):
      rows = [compared for compared in self.rows if compared.table.number == number]
      table = rows[0].table
      notes: dict[str, list[str]] = {}
      for compared in rows:
        for quantity in (compared.flops, compared.parameters):
          if quantity.differs:
            notes.setdefault(quantity.note, []).append(compared.row.label)
      yield (
        f"Table {number}: {table.title}; accuracy on {table.split}",
        rows,
        [f"* {'; '.join(dict.fromkeys(labels))}: {note}" for note, labels in notes.items()],
      )

  def table(self) -> RenderableType:
    """Returns one table for each of the paper's tables, and the summary."""
    parts = []
    for title, rows, notes in self._sections():
      parts += [
        Text(title, style="bold"),
        _table(rows).to_rich(),
        *(Text(note, style="yellow") for note in notes),
        Text(),
      ]
    return Group(*parts, *map(Text, self.summary()))

  def markdown(self) -> str:
    """Returns the tables and the summary in Markdown."""
    parts = []
    for title, rows, notes in self._sections():
      parts.append(f"{title}\n\n{_table(rows).to_markdown()}")
      parts += [f"\\{note}\n" for note in notes]
    return "\n".join([*parts, *(f"* {line}" for line in self.summary())])

  def _records(self) -> list[dict[str, Any]]:
    return [
      {
        "table": compared.table.number,
        "row": compared.row.label,
        "model": compared.row.model,
        "config": f"imagenet/{compared.row.model}.yaml",
        "accuracy": compared.row.accuracy,
        "split": compared.table.split,
        **{
          f"{quantity}_{part}": getattr(getattr(compared, quantity), part)
          for quantity in ("flops", "parameters")
          for part in ("paper", "ours", "difference", "differs", "note")
        },
      }
      for compared in self.rows
    ]

  def csv(self) -> str:
    """Returns one line per row; FLOPs in billions, parameters in millions."""
    return csv_text(self._records())

  def json(self) -> str:
    """Returns the rows of `csv` and the percentages of the summary."""
    flops, parameters = self.savings()
    return json_text(
      {
        "convention": self.convention.name,
        "rows": self._records(),
        "resnet50_full_attention_saves": {
          "flops_percent": flops,
          "parameters_percent": parameters,
          "paper": {"flops_percent": FLOPS_SAVED, "parameters_percent": PARAMETERS_SAVED},
        },
      }
    )


def _table(rows: Sequence[ComparedRow]) -> Table:
  table = Table(
    [
      Column(title, "right" if title else "left", wrap=not title, terminal_title=short)
      for title, short in zip(_TITLES, _TERMINAL_TITLES, strict=True)
    ]
  )
  for compared in rows:
    differs = compared.flops.differs or compared.parameters.differs
    table.add_row(
      compared.row.label,
      *compared.flops.cells(),
      *compared.parameters.cells(),
      f"{compared.row.accuracy:.1f}",
      style="yellow" if differs else None,
    )
  return table
