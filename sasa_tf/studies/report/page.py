"""Writes the report: Markdown with PNG files beside it, and a self-contained HTML page."""

from __future__ import annotations

import html
import os
import pathlib
import re
from collections.abc import Mapping

from sasa_tf import extras
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_file
from sasa_tf.outputs.whole_files import write_file
from sasa_tf.reporting import Table
from sasa_tf.reporting.html_page import embedded_png, html_page
from sasa_tf.reporting.plot_style import png_bytes
from sasa_tf.studies.report import tables
from sasa_tf.studies.report.statistics import VERDICTS
from sasa_tf.studies.report.summary import StudySummary

# The part of a Markdown document that a report replaces, if the document has it.
BEGIN, END = "<!-- study-report -->", "<!-- /study-report -->"
# Lines of their own: text may mention the marks.
_MARKED = re.compile(f"^{re.escape(BEGIN)}$.*?^{re.escape(END)}$", re.DOTALL | re.MULTILINE)

_FINDINGS = "Findings of the paper"
# Text below the table of a section.
_NOTES = {_FINDINGS: VERDICTS}
_PLOT_TITLES = {
  "metric": "Each seed, mean and standard deviation",
  "cost": "Metric over parameters, FLOPs and training speed",
  "time": "Evaluations during the training",
}


def check_report(path: str, overwrite: bool) -> dict[str, pathlib.Path]:
  """Checks that the files of a report can be written, and returns {kind: path}.

  Args:
    path: of the Markdown file. A document with the marks of a report is written to in any case.
    overwrite: whether to replace existing files.

  Raises:
    UserError: a file exists or cannot be written, or a package is missing.
  """
  extras.require("--report", "matplotlib", "scipy")
  if pathlib.Path(path).suffix != ".md":
    raise UserError(f"--report={path}: expected a file name that ends with .md.")
  marked = _is_marked(pathlib.Path(path))
  markdown = check_file(path, "report", overwrite=overwrite or marked)
  files = {"markdown": markdown, "html": markdown.with_suffix(".html")}
  for name in _PLOT_TITLES:
    files[name] = markdown.with_name(f"{markdown.stem}_{name}.png")
  for file in files.values():
    if file is not markdown:
      check_file(file, "report", overwrite=overwrite or marked)
  return files


def write_report(summary: StudySummary, files: Mapping[str, pathlib.Path]) -> None:
  """Writes Markdown, plots and HTML.

  Args:
    summary: the results.
    files: from `check_report`.
  """
  from sasa_tf.studies.report.plots import make_plots

  plots = {}
  for name, plot in make_plots(summary).items():
    plots[name] = png_bytes(plot)
    write_file(files[name], plots[name])
  _write(files["markdown"], _markdown(summary, plots, files))
  write_file(files["html"], _html(summary, plots))


def _is_marked(path: pathlib.Path) -> bool:
  if not os.path.isfile(path):  # a pipe would be read forever
    return False
  try:
    return bool(_MARKED.search(path.read_text(encoding="utf-8")))
  except (OSError, UnicodeDecodeError):
    return False


def _write(path: pathlib.Path, section: str) -> None:
  """Writes the section, into its place in a document that has one."""
  text = f"# Study\n\n{BEGIN}\n{section}{END}\n"
  if _is_marked(path):
    document = path.read_text(encoding="utf-8")
    text = _MARKED.sub(lambda _: f"{BEGIN}\n{section}{END}", document, count=1)
  write_file(path, text)


def _sections(summary: StudySummary) -> list[tuple[str, Table]]:
  found = [
    (f"Results of the study {summary.name}", tables.results_table(summary)),
    (_FINDINGS, tables.findings_table(summary)),
    ("Runs that failed", tables.failures_table(summary)),
  ]
  return [(title, table) for title, table in found if table is not None]


def _markdown(
  summary: StudySummary, plots: Mapping[str, bytes], files: Mapping[str, pathlib.Path]
) -> str:
  parts = [
    f"## {title}\n\n{table.to_markdown()}" + (f"\n{_NOTES[title]}\n" if title in _NOTES else "")
    for title, table in _sections(summary)
  ]
  images = [f"![{_PLOT_TITLES[name]}]({files[name].name})\n" for name in plots]
  notes = "".join(f"* {line}\n" for line in tables.describe(summary))
  return "\n".join([parts[0], notes, *images, *parts[1:]])


def _html(summary: StudySummary, plots: Mapping[str, bytes]) -> str:
  parts = [
    f"<h2>{html.escape(title)}</h2>\n{table.to_html()}\n<p>{html.escape(_NOTES.get(title, ''))}</p>"
    for title, table in _sections(summary)
  ]
  images = [
    f"<h3>{_PLOT_TITLES[name]}</h3>\n{embedded_png(content, _PLOT_TITLES[name])}"
    for name, content in plots.items()
  ]
  notes = "".join(f"<li>{html.escape(line)}</li>\n" for line in tables.describe(summary))
  body = "\n".join([parts[0], f"<ul>\n{notes}</ul>", *images, *parts[1:]])
  return html_page(f"Study {summary.name}", body)
