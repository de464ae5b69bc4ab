"""The report on the paper's tables: each row as printed, as counted here, and the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
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
from sasa_tf.analysis.report_formats import csv_text, json_text, markdown_table
from sasa_tf.errors import UserError

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
# The same in two lines, for a terminal.
_HEADERS = (
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
  """A printed figure beside ours.

  Attributes:
    paper: as printed, with one digit after the point; None where the paper prints none.
    ours: in the same unit.
    note: why the printed digit differs; "" if it does not.
  """

  paper: float | None
  ours: float
  note: str = ""

  @property
  def difference(self) -> float | None:
    """Ours less the paper's."""
    return None if self.paper is None else self.ours - self.paper

  @property
  def differs(self) -> bool:
    """Whether ours, rounded, is another figure than the printed one."""
    return self.paper is not None and f"{self.ours:.1f}" != f"{self.paper:.1f}"

  def cells(self) -> list[str]:
    """Returns the texts of paper, ours and difference."""
    ours = f"{self.ours:.3f}{'*' if self.differs else ' '}"
    if self.paper is None:
      return ["", ours, ""]
    return [f"{self.paper:.1f}", ours, f"{self.difference:+.3f}"]


@dataclasses.dataclass(frozen=True)
class ComparedRow:
  """A row of the paper beside ours.

  Attributes:
    table: that it is of.
    row: as the paper has it.
    flops: in billions.
    parameters: in millions.
  """

  table: PaperTable
  row: Row
  flops: Comparison
  parameters: Comparison


def compare(row: Row, table: PaperTable, cost: ModelCost) -> ComparedRow:
  """Returns a row of the paper beside what its model costs here."""

  def comparison(quantity, paper, ours):
    found = Comparison(paper, ours)
    if not found.differs:
      return found
    fallback = f"the convention {cost.convention.name} does not count as the paper does"
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
  """Returns the numbers of tables of classifiers, each once.

  Raises:
    UserError: there is no such table, or it is that of detectors.
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
      f"Table {_DETECTION} is of detectors ({TABLES[_DETECTION].title}) and has columns of its "
      f"own: ask for it alone, --paper_tables={_DETECTION}, without --plot."
    )
  return numbers


@dataclasses.dataclass(frozen=True)
class PaperReport:
  """The report on some tables, see `writing.Report`.

  Attributes:
    rows: of all tables, in order.
    convention: of our FLOPs.
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
    """Counts the models of some tables.

    Args:
      numbers: of the tables, see `check_numbers`.
      cost_of: from a key of `paper_tables.MODELS` to its cost, in any convention.
      convention: to report FLOPs in.
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
    """Returns the keys of `MODELS` that appear, in its order."""
    return [name for name in MODELS if name in {compared.row.model for compared in self.rows}]

  def savings(self) -> tuple[float, float]:
    """Returns the per cent of FLOPs and of parameters that full attention saves."""
    pairs = (
      (self.attention.flops, self.conv.flops),
      (self.attention.parameters, self.conv.parameters),
    )
    return tuple(100 * (1 - ours / baseline) for ours, baseline in pairs)

  def headline(self) -> list[str]:
    """Returns the sentences of the end: agreement of all rows, and the abstract's percentages."""
    lines = []
    for quantity, unit in (("flops", "G"), ("parameters", "M")):
      pairs = [getattr(row, quantity) for row in self.rows]
      pairs = [pair for pair in pairs if pair.paper is not None]
      if pairs:
        name = "FLOPs" if quantity == "flops" else quantity
        agree = sum(not pair.differs for pair in pairs)
        largest = max(abs(pair.difference) for pair in pairs)
        lines.append(
          f"{name}: {agree} of {len(pairs)} rows to the printed digit, largest difference "
          f"{largest:.3f} {unit}."
        )
    flops, parameters = self.savings()
    lines.append(
      "ResNet-50, full attention against convolution: "
      f"{-flops:+.1f} % FLOPs ({self.attention.flops / 1e9:.3f} against "
      f"{self.conv.flops / 1e9:.3f} G), {-parameters:+.1f} % parameters "
      f"({self.attention.parameters:,} against {self.conv.parameters:,}); "
      f"the paper says -{FLOPS_SAVED} % and -{PARAMETERS_SAVED} %."
    )
    lines.append(f"FLOPs of the convention {self.convention.name}: {self.convention.summary}.")
    return lines

  def _tables(self) -> Iterator[tuple[str, list[ComparedRow], list[str]]]:
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

  @staticmethod
  def _cells(compared: ComparedRow) -> list[str]:
    accuracy = f"{compared.row.accuracy:.1f}"
    return [
      compared.row.label,
      *compared.flops.cells(),
      *compared.parameters.cells(),
      accuracy,
    ]

  def table(self) -> RenderableType:
    """Returns a table for each of the paper's, and the headline."""
    parts = []
    for title, rows, notes in self._tables():
      table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
      for number, name in enumerate(_HEADERS):
        table.add_column(name, justify="right" if number else "left", no_wrap=bool(number))
      for compared in rows:
        marked = compared.flops.differs or compared.parameters.differs
        table.add_row(*self._cells(compared), style="yellow" if marked else None)
      parts += [
        Text(title, style="bold"),
        table,
        *(Text(note, style="yellow") for note in notes),
        Text(),
      ]
    return Group(*parts, *map(Text, self.headline()))

  def markdown(self) -> str:
    """Returns the same as `table`."""
    parts = []
    for title, rows, notes in self._tables():
      parts.append(f"{title}\n\n{markdown_table(_TITLES, list(map(self._cells, rows)))}")
      parts += [f"\\{note}\n" for note in notes]
    return "\n".join([*parts, *(f"* {line}" for line in self.headline())])

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
    """Returns a line a row; FLOPs in billions, parameters in millions."""
    return csv_text(self._records())

  def json(self) -> str:
    """Returns the rows, as in `csv`, and the headline's percentages."""
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
