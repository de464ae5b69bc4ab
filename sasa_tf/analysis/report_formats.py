"""Reports as text: tables for terminals and documents, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console, RenderableType

from sasa_tf.errors import UserError

FORMATS = ("table", "csv", "json", "markdown")

# Columns of text where nothing says how wide the terminal is, and at most.
WIDTH = 100


class Report(Protocol):
  """What `write_report` can write."""

  def table(self) -> RenderableType:
    """Returns what to print to a terminal."""

  def csv(self) -> str:
    """Returns comma-separated values with a line of names."""

  def json(self) -> str:
    """Returns one JSON value."""

  def markdown(self) -> str:
    """Returns tables in Markdown."""


def write_report(report: Report, form: str, output: str | None = None) -> None:
  """Writes a report to the terminal or to a file.

  Args:
    report: to write.
    form: one of `FORMATS`.
    output: path of the file; None prints.

  Raises:
    UserError: the file cannot be written.
  """
  if output is None:
    _write(report, form, sys.stdout)
    return
  try:
    with pathlib.Path(output).open("w") as file:
      _write(report, form, file)
  except OSError as error:
    raise UserError(f"--output={output} cannot be written: {error.strerror}.") from error


def _write(report: Report, form: str, file: Any) -> None:
  if form == "table":
    console = Console(file=file, highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(report.table())
  else:
    print(getattr(report, form)().rstrip(), file=file)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
  """Returns records of the same keys as CSV; None becomes an empty cell."""
  stream = io.StringIO()
  writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
  writer.writeheader()
  writer.writerows(records)
  return stream.getvalue()


def json_text(value: Any) -> str:
  """Returns a value as JSON."""
  return json.dumps(value, indent=1)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a table in Markdown, one line a row; pipes in cells are escaped."""

  def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.strip().replace('|', escaped) for cell in cells)} |\n"

  escaped = "\\|"
  return "".join([line(titles), f"|{'---|' * len(titles)}\n", *map(line, rows)])
