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


def test_existing_file_is_replaced_only_on_request(tmp_path):
  path = tmp_path / "report"
  path.write_text("old")
  with pytest.raises(UserError, match=r"--output=.*report exists.*--overwrite"):
    write_report(Example(), "csv", str(path))
  assert path.read_text() == "old"
  write_report(Example(), "csv", str(path), overwrite=True)
  assert path.read_text() == csv_text(RECORDS)
  assert [file.name for file in tmp_path.iterdir()] == ["report"]


def test_unwritable_file_is_a_user_error(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match=r"--output=.*: .*file is a file; expected a directory"):
    write_report(Example(), "csv", str(tmp_path / "file" / "x"))


def test_import_loads_no_other_packages():
  """Programs import it before they read their flags."""
  program = "import sys, sasa_tf.reporting; print({'rich', 'tqdm', 'tensorflow'} & {*sys.modules})"
  assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
