"""Renders the computed cost of the paper's models into docs/paper_tables.md.

python docs/render_paper_tables.py
"""

from __future__ import annotations

import pathlib
import re

DOCUMENT = pathlib.Path(__file__).parent / "paper_tables.md"
_MARKER = "<!-- tables -->\n"
_TITLE = re.compile(r"^(Table \d+: .*); (accuracy|mAP) (on .*)$", re.MULTILINE)


def _sections() -> str:
  """Returns all tables, with their titles as headings."""
  from sasa_tf.analysis.paper.classifiers import count_paper_models, paper_cost
  from sasa_tf.analysis.paper.detection_report import DetectionReport
  from sasa_tf.analysis.paper.detectors import paper_detector_cost
  from sasa_tf.analysis.paper.report import CLASSIFICATION, PaperReport
  from sasa_tf.analysis.paper.tables import TABLES

  count_paper_models([row.model for number in CLASSIFICATION for row in TABLES[number].rows])
  classifiers = PaperReport.of(CLASSIFICATION, paper_cost).markdown()
  tables, _, summary = classifiers.partition("\n* FLOPs: ")
  detectors = DetectionReport.of(paper_detector_cost).markdown()
  text = f"{tables}\n## All classifiers\n\n* FLOPs: {summary}\n\n{detectors}\n"
  return _TITLE.sub(r"## \1\n\nThe paper's \2 is measured \3.", text)


def render() -> str:
  """Returns the document with its current introduction and the rendered tables."""
  introduction = DOCUMENT.read_text().partition(_MARKER)[0]
  return introduction + _MARKER + "\n" + _sections()


if __name__ == "__main__":
  DOCUMENT.write_text(render())
