import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import read_labels, write_labels


def test_names_survive_a_round_trip(tmp_path):
  names = ("cat", "Große Katze", " leading and trailing ", "tab\there", "line\u2028separator")
  write_labels(tmp_path / "labels.txt", names)
  assert read_labels(tmp_path / "labels.txt") == names


def test_the_file_is_one_name_a_line(tmp_path):
  write_labels(tmp_path / "labels.txt", ["a", "b"])
  assert (tmp_path / "labels.txt").read_bytes() == b"a\nb\n"


def test_reads_windows_line_ends_and_a_missing_last_one(tmp_path):
  (tmp_path / "labels.txt").write_bytes(b"a\r\nb")
  assert read_labels(tmp_path / "labels.txt") == ("a", "b")


@pytest.mark.parametrize(
  ("names", "fault"),
  [
    (["a", ""], "non-empty"),
    (["a\nb"], "one non-empty line"),
    (["a\r"], "one non-empty line"),
    (["a", "b", "a"], "'a' of label 2 occurs twice"),
    (["\udcff"], "not valid Unicode"),
  ],
)
def test_refuses_names_that_would_not_survive(tmp_path, names, fault):
  with pytest.raises(DatasetError, match=fault):
    write_labels(tmp_path / "labels.txt", names)
  assert not (tmp_path / "labels.txt").exists()


@pytest.mark.parametrize(
  ("content", "fault"), [(b"", "non-empty"), (b"a\n\nb\n", "label 1"), (b"\xff\n", "UTF-8")]
)
def test_refuses_files_that_it_would_not_write(tmp_path, content, fault):
  (tmp_path / "labels.txt").write_bytes(content)
  with pytest.raises(DatasetError, match=fault):
    read_labels(tmp_path / "labels.txt")


def test_names_a_missing_file(tmp_path):
  with pytest.raises(DatasetError, match=r"nowhere\.txt: No such file"):
    read_labels(tmp_path / "nowhere.txt")
