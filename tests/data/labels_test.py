import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import read_labels, write_labels


def test_round_trip(tmp_path):
  names = ("cat", "Große Katze", " leading and trailing ", "tab\there", "line\u2028separator")
  write_labels(tmp_path / "labels.txt", names)
  assert read_labels(tmp_path / "labels.txt") == names


def test_file_has_one_name_per_line(tmp_path):
  write_labels(tmp_path / "labels.txt", ["a", "b"])
  assert (tmp_path / "labels.txt").read_bytes() == b"a\nb\n"


def test_reads_windows_line_endings_and_missing_final_newline(tmp_path):
  (tmp_path / "labels.txt").write_bytes(b"a\r\nb")
  assert read_labels(tmp_path / "labels.txt") == ("a", "b")


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["a", ""], "non-empty"),
    (["a\nb"], "one non-empty line"),
    (["a\r"], "one non-empty line"),
    (["a", "b", "a"], "'a' of label 2 occurs twice"),
    (["\udcff"], "not valid Unicode"),
  ],
)
def test_invalid_names_raise(tmp_path, names, message):
  with pytest.raises(DatasetError, match=message):
    write_labels(tmp_path / "labels.txt", names)
  assert not (tmp_path / "labels.txt").exists()


@pytest.mark.parametrize(
  ("content", "message"), [(b"", "non-empty"), (b"a\n\nb\n", "label 1"), (b"\xff\n", "UTF-8")]
)
def test_invalid_files_raise(tmp_path, content, message):
  (tmp_path / "labels.txt").write_bytes(content)
  with pytest.raises(DatasetError, match=message):
    read_labels(tmp_path / "labels.txt")


def test_missing_file_raises(tmp_path):
  with pytest.raises(DatasetError, match=r"nowhere\.txt: No such file"):
    read_labels(tmp_path / "nowhere.txt")
