"""Result files are appended to, and other files are not."""

import json
import pathlib

import pytest

from sasa_tf.errors import UserError
from sasa_tf.outputs.json_lines import append_json_lines, check_json_lines

LINE = json.dumps({"case": {"name": "\u00e9"}})


def test_lines_are_appended(tmp_path):
  path = tmp_path / "new" / "a.jsonl"
  check_json_lines(path)
  assert not path.parent.exists()
  append_json_lines(path, [LINE])
  append_json_lines(path, [LINE, LINE])
  assert path.read_text() == f"{LINE}\n" * 3


def test_line_of_a_killed_process_is_not_continued(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text(f"{LINE}\n{LINE[:9]}")
  append_json_lines(path, [LINE])
  assert path.read_text().splitlines() == [LINE, LINE[:9], LINE]


def test_unfinished_first_line_is_not_continued(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text(LINE[:9])
  append_json_lines(path, [LINE])
  append_json_lines(path, [LINE])
  assert path.read_text().splitlines() == [LINE[:9], LINE, LINE]


@pytest.mark.parametrize("content", ["# Notes\n", "{}\n", '{"case": 1}\n', "[" * 9999, "\x89PNG"])
def test_other_files_are_not_appended_to(tmp_path, content):
  path = tmp_path / "a"
  path.write_text(content)
  with pytest.raises(UserError, match=r"--output=.* exists and holds no results"):
    append_json_lines(path, [LINE])
  assert path.read_text() == content


def test_paths_that_cannot_be_written(tmp_path):
  with pytest.raises(UserError, match="is a directory; expected a file"):
    check_json_lines(tmp_path)
  with pytest.raises(UserError, match="expected a local path"):
    check_json_lines("gs://bucket/a.jsonl")
  append_json_lines("/dev/null", [LINE])
  assert pathlib.Path("/dev/null").is_char_device()
