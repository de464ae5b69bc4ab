"""Files that are written whole, and errors of the file system."""

import pathlib

import pytest

from sasa_tf.errors import UserError
from sasa_tf.outputs.whole_files import write_file, writing


def test_text_and_bytes(tmp_path):
  file = tmp_path / "new" / "file"
  write_file(file, "größer")
  assert file.read_text(encoding="utf-8") == "größer"
  write_file(file, b"\x00")
  assert file.read_bytes() == b"\x00"
  assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_error_names_the_file_and_keeps_the_earlier_one(tmp_path):
  with pytest.raises(UserError, match=r"^/proc/report\.md cannot be written: No such file.*Choose"):
    write_file(pathlib.Path("/proc/report.md"), "text")
  file = tmp_path / "file"
  file.write_text("earlier")
  with pytest.raises(UserError, match="No space left"), writing(file) as path:
    path.write_text("half")
    raise OSError(28, "No space left on device")
  assert file.read_text() == "earlier"
