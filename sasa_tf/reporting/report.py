"""Reports for terminals, documents (Markdown) and programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from sasa_tf import extras
from sasa_tf.outputs.path_checks import check_file
from sasa_tf.outputs.whole_files import writing
from sasa_tf.reporting.table import WIDTH

if TYPE_CHECKING:
  import rich.console

FORMATS = ("table", "csv", "json", "markdown")


class Report(Protocol):
  """What `write_report` can write."""

  def table(self) -> rich.console.RenderableType:
    """Returns the content for rich's console."""

  def csv(self) -> str:
    """Returns comma-separated values with a header line."""

  def json(self) -> str:
    """Returns one JSON value."""

  def markdown(self) -> str:
    """Returns tables in Markdown."""


def write_report(
  report: Report, report_format: str, output: str | None = None, *, overwrite: bool = False
) -> None:
  """Writes a report to the terminal or to a file.

  Args:
    report: to write.
    report_format: one of `FORMATS`.
    output: path of the file; None for standard output.
    overwrite: whether to replace an existing file.

  Raises:
    UserError: the file exists or cannot be written.
    MissingExtraError: the format is "table" and rich is not installed.
  """
  if output is None:
    _write(report, report_format, sys.stdout)
    return
  target = check_file(output, "output", overwrite=overwrite)
  with writing(target) as path, path.open("w", encoding="utf-8") as file:
    _write(report, report_format, file)


def _write(report: Report, report_format: str, file: TextIO) -> None:
  if report_format == "table":
    extras.require("a report as a table", "rich")
    from rich.console import Console

    console = Console(file=file, highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(report.table())
  else:
    print(getattr(report, report_format)().rstrip(), file=file)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
  """Returns records with the same keys as CSV; None becomes an empty cell."""
  stream = io.StringIO()
  writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
  writer.writeheader()
  writer.writerows(records)
  return stream.getvalue()


def json_text(value: Any) -> str:
  """Returns a value as indented JSON."""
  return json.dumps(value, indent=1)
