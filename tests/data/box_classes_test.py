import pytest

from sasa_tf.data.detection.box_classes import box_classes, numbered_classes, parse_classes
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import write_labels


def test_labels_begin_at_one():
  classes = numbered_classes(["cat", "dog"])
  assert classes.labels == ("background", "cat", "dog")
  assert classes.categories == ({"id": 1, "name": "cat"}, {"id": 2, "name": "dog"})


def test_gaps_keep_their_lines():
  classes = box_classes([{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}])
  assert classes.labels == ("background", "unused 1", "cat", "unused 3", "dog")
  assert [category["id"] for category in classes.categories] == [4, 2]


@pytest.mark.parametrize("text", ["dog,cat", " dog , cat"])
def test_reads_names(text):
  assert parse_classes(text) == ["dog", "cat"]


def test_reads_the_labels_of_another_split(tmp_path):
  write_labels(tmp_path / "labels.txt", numbered_classes(["dog", "a, b"]).labels)
  assert parse_classes(str(tmp_path / "labels.txt")) == ["dog", "a, b"]


def test_no_text_chooses_no_classes():
  assert parse_classes("") == []


@pytest.mark.parametrize(
  ("text", "words"),
  [("a,,b", "non-empty"), ("a,a", "occurs twice"), ("nowhere.txt", "No such file")],
)
def test_refuses_what_is_no_list_of_classes(text, words):
  with pytest.raises(DatasetError, match=words):
    parse_classes(text)


def test_refuses_a_class_called_background_and_none_at_all():
  with pytest.raises(DatasetError, match=r"'background' of label 1 occurs twice"):
    numbered_classes(["background"])
  with pytest.raises(DatasetError, match="no annotation has a box"):
    numbered_classes([])
