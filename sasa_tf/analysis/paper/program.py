"""What `profile_model` does for the paper's tables."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.analysis.paper import detection_report
from sasa_tf.analysis.paper.classifiers import count_paper_models, paper_cost
from sasa_tf.analysis.paper.detectors import paper_detector_cost
from sasa_tf.analysis.paper.plot import plot_paper, save_plot
from sasa_tf.analysis.paper.report import PaperReport, check_numbers
from sasa_tf.analysis.paper.tables import TABLES
from sasa_tf.analysis.report_formats import write_report
from sasa_tf.errors import UserError


def profile_paper(
  numbers: Sequence[str],
  *,
  convention: str = "paper",
  form: str = "table",
  output: str | None = None,
  plot: str | None = None,
) -> None:
  """Prints tables of the paper beside ours, and draws the plot.

  Args:
    numbers: of the tables, as typed; none for the plot alone.
    convention: of our FLOPs.
    form: one of `writing.FORMATS`.
    output: file of the report; None prints it.
    plot: PNG file to write, or None.

  Raises:
    UserError: a table that does not exist, that of detectors beside others or with a plot, or a
      file that cannot be written.
  """
  if not all(number.isdecimal() for number in numbers):
    raise UserError(
      f"--paper_tables expects numbers, for example 1,3; received {','.join(numbers)}."
    )
  if list(map(int, numbers)) == [detection_report.NUMBER] and not plot:
    report = detection_report.DetectionReport.of(paper_detector_cost)
    write_report(report, form, output)
    return
  tables = check_numbers(map(int, numbers)) if numbers else ()
  drawn = [TABLES[1]] if plot else []
  rows = [row for table in [*map(TABLES.get, tables), *drawn] for row in table.rows]
  count_paper_models([*(row.model for row in rows), "resnet50", "sasa_resnet50"])
  if tables:
    write_report(PaperReport.of(tables, paper_cost, convention), form, output)
  if plot:
    save_plot(plot_paper(lambda name: paper_cost(name).in_convention(convention)), plot)
