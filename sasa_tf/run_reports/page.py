"""Writes the report: a self-contained HTML page, and the curves as a PNG file beside it."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence

from sasa_tf import extras
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_file
from sasa_tf.outputs.whole_files import write_file
from sasa_tf.reporting.html_page import embedded_png, html_page
from sasa_tf.reporting.plot_style import png_bytes
from sasa_tf.run_reports import tables
from sasa_tf.run_reports.runs import Run


def check_output(output: str, overwrite: bool) -> tuple[pathlib.Path, pathlib.Path]:
  """Checks that the files of a report can be written; returns the paths of HTML and PNG.

  Args:
    output: path of the HTML file.
    overwrite: whether to replace existing files.

  Raises:
    UserError: a file exists or cannot be written, or a package is missing.
  """
  extras.require("a report of runs", "matplotlib")
  if pathlib.Path(output).suffix != ".html":
    raise UserError(f"--output={output}: expected a file name that ends with .html.")
  page = check_file(output, "output", overwrite=overwrite)
  curves = check_file(page.with_suffix(".png"), "output", overwrite=overwrite)
  return page, curves


def write_report(runs: Sequence[Run], page: pathlib.Path, curves: pathlib.Path) -> None:
  """Writes the report.

  Args:
    runs: the trainings.
    page: HTML file to write.
    curves: PNG file to write. Not written if nothing was logged.

  Raises:
    UserError: the files cannot be written.
  """
  from sasa_tf.run_reports.curves import plot_curves

  parts = [tables.runs_table(runs).to_html()]
  plot = plot_curves(runs)
  if plot is not None:
    content = png_bytes(plot)
    write_file(curves, content)
    parts += ["<h2>Curves</h2>", embedded_png(content, "Curves of each run over the training step")]
  if (differences := tables.differences_table(runs)) is not None:
    parts += ["<h2>Differences of the configurations</h2>", differences.to_html()]
  if unknown := [run.name for run in runs if not run.params]:
    parts.append(f"<p>Without a readable params.yaml: {html.escape(', '.join(unknown))}.</p>")
  write_file(page, html_page("Training runs", "\n".join(parts)))
