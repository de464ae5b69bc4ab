"""The part of `profile_model` that reports on the paper's tables."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.analysis.paper import detection_report
from sasa_tf.analysis.paper.classifiers import count_paper_models, paper_cost
from sasa_tf.analysis.paper.detectors import paper_detector_cost
from sasa_tf.analysis.paper.plot import plot_paper, save_plot
from sasa_tf.analysis.paper.report import PaperReport, check_numbers
from sasa_tf.analysis.paper.tables import TABLES
from sasa_tf.errors import UserError
from sasa_tf.reporting import write_report


def profile_paper(
  numbers: Sequence[str],
  *,
  convention: str = "paper",
  report_format: str = "table",
  output: str | None = None,
  plot: str | None = None,
  overwrite: bool = False,
) -> None:
  """Reports on tables of the paper and draws the plot.

  Args:
    numbers: numbers of the tables, as strings; empty for the plot alone.
    convention: for the computed FLOPs.
    report_format: one of `reporting.FORMATS`.
    output: file for the report; None for standard output.
    plot: PNG file to write, or None.
    overwrite: whether to replace existing files.

  Raises:
    UserError: a table does not exist, the table of detectors is combined with others or with a
      plot, or a file cannot be written.
  """
  if not all(number.isdecimal() for number in numbers):
    raise UserError(
      f"--paper_tables expects numbers, for example 1,3; received {','.join(numbers)}."
    )
  if list(map(int, numbers)) == [detection_report.NUMBER] and not plot:
    report = detection_report.DetectionReport.of(paper_detector_cost)
    write_report(report, report_format, output, overwrite=overwrite)
    return
  tables = check_numbers(map(int, numbers)) if numbers else ()
  drawn = [TABLES[1]] if plot else []
  rows = [row for table in [*map(TABLES.get, tables), *drawn] for row in table.rows]
  count_paper_models([*(row.model for row in rows), "resnet50", "sasa_resnet50"])
  if tables:
    table = PaperReport.of(tables, paper_cost, convention)
    write_report(table, report_format, output, overwrite=overwrite)
  if plot:
    figure = plot_paper(lambda name: paper_cost(name).in_convention(convention))
    save_plot(figure, plot, overwrite=overwrite)
