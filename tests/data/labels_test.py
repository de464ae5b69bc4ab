import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import read_labels, similar_names, write_labels


def test_round_trip(tmp_path):
  names = ("cat", "Große Katze", "tab\there", "line\u2028separator")
  write_labels(tmp_path / "labels.txt", names)
  assert read_labels(tmp_path / "labels.txt") == names


def test_file_has_one_name_per_line(tmp_path):
  write_labels(tmp_path / "labels.txt", ["a", "b"])
  assert (tmp_path / "labels.txt").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize(
  "content",
  [
    b"background\r\ncat",
    b"\xef\xbb\xbfbackground\ncat\n",
    b"background \ncat\t\n\n \n",
    "background\r\ncat\r\n".encode("utf-16"),
    "background\ncat".encode("utf-32"),
    b"background\rcat\r",
  ],
)
def test_reads_what_other_systems_write(tmp_path, content):
  (tmp_path / "labels.txt").write_bytes(content)
  assert read_labels(tmp_path / "labels.txt") == ("background", "cat")


def test_names_that_differ_in_case_or_normalization_are_similar():
  names = ["cat", "dog", "Cat", "caf\u00e9", "cafe\u0301", "CAT", "stra\u00dfe", "STRASSE", "cat 2"]
  assert similar_names(names) == [
    ("cat", "Cat", "CAT"),
    ("caf\u00e9", "cafe\u0301"),
    ("stra\u00dfe", "STRASSE"),
  ]


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["a", ""], "non-empty"),
    (["a\nb"], "one non-empty line"),
    (["a\r"], "one non-empty line"),
    (["a", "b", "a"], "'a' of label 2 occurs twice"),
    (["\udcff"], "not valid Unicode"),
    (["a "], "white space"),
    (["\ufeffa"], "byte order mark"),
    (["a\0"], "NUL"),
  ],
)
def test_invalid_names_raise(tmp_path, names, message):
  with pytest.raises(DatasetError, match=message):
    write_labels(tmp_path / "labels.txt", names)
  assert not (tmp_path / "labels.txt").exists()


@pytest.mark.parametrize(
  ("content", "message"),
  [(b"", "is empty"), (b"a\n\nb\n", "labels.txt: .*label 1"), (b"\xff\n", "UTF-8.*offset 0")],
)
def test_invalid_files_raise(tmp_path, content, message):
  (tmp_path / "labels.txt").write_bytes(content)
  with pytest.raises(DatasetError, match=message):
    read_labels(tmp_path / "labels.txt")


def test_missing_file_raises(tmp_path):
  with pytest.raises(DatasetError, match=r"nowhere\.txt: No such file"):
    read_labels(tmp_path / "nowhere.txt")
