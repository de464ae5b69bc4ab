"""Reports written to the terminal and to files."""

import json
import subprocess
import sys

import pytest

from sasa_tf.errors import UserError
from sasa_tf.reporting import FORMATS, Table, csv_text, json_text, write_report

RECORDS = [{"name": "a", "value": 1}, {"name": "b", "value": None}]


class Example:
  """A report in all formats."""

  def table(self):
    table = Table(["name", "value"])
    for record in RECORDS:
      table.add_row(record["name"], str(record["value"]))
    return table.to_rich()

  def markdown(self):
    return "| name | value |\n"

  def csv(self):
    return csv_text(RECORDS)

  def json(self):
    return json_text(RECORDS)


@pytest.mark.parametrize("report_format", FORMATS)
def test_file_and_terminal_receive_the_same_text(report_format, tmp_path, capsys):
  write_report(Example(), report_format)
  printed = capsys.readouterr().out
  write_report(Example(), report_format, str(tmp_path / "report"))
  assert printed and (tmp_path / "report").read_text() == printed


def test_none_is_an_empty_csv_cell():
  assert csv_text(RECORDS) == "name,value\na,1\nb,\n"


def test_json_keeps_none():
  assert json.loads(json_text(RECORDS)) == RECORDS


def test_unwritable_file_is_a_user_error(tmp_path):
  with pytest.raises(UserError, match=r"--output=.*missing/x cannot be written: No such file"):
    write_report(Example(), "csv", str(tmp_path / "missing" / "x"))


def test_import_loads_no_other_packages():
  """Programs import it before they read their flags."""
  program = "import sys, sasa_tf.reporting; print({'rich', 'tqdm', 'tensorflow'} & {*sys.modules})"
  assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
