"""Progress bars, tables and report files of all programs."""

from sasa_tf.reporting.progress import (
  ProgressBar,
  format_duration,
  format_metrics,
  format_speed,
  track,
)
from sasa_tf.reporting.report import FORMATS, Report, csv_text, json_text, write_report
from sasa_tf.reporting.table import WIDTH, Column, Table, clip

__all__ = [
  "FORMATS",
  "WIDTH",
  "Column",
  "ProgressBar",
  "Report",
  "Table",
  "clip",
  "csv_text",
  "format_duration",
  "format_metrics",
  "format_speed",
  "json_text",
  "track",
  "write_report",
]
