import pytest

from sasa_tf.data.detection.boxes import (
  classes_of_categories,
  classes_of_names,
  parse_classes,
)
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import write_labels


def test_labels_start_at_one():
  classes = classes_of_names(["cat", "dog"])
  assert classes.class_names == ("background", "cat", "dog")
  assert classes.categories == ({"id": 1, "name": "cat"}, {"id": 2, "name": "dog"})


def test_missing_ids_have_a_line():
  classes = classes_of_categories([{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}])
  assert classes.class_names == ("background", "unused 1", "cat", "unused 3", "dog")
  assert [category["id"] for category in classes.categories] == [4, 2]


@pytest.mark.parametrize("text", ["dog,cat", " dog , cat"])
def test_parses_names(text):
  assert parse_classes(text) == ["dog", "cat"]


def test_parses_the_labels_file_of_another_split(tmp_path):
  write_labels(tmp_path / "labels.txt", classes_of_names(["dog", "a, b"]).class_names)
  assert parse_classes(str(tmp_path / "labels.txt")) == ["dog", "a, b"]


def test_labels_without_a_class_are_skipped(tmp_path):
  categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]
  write_labels(tmp_path / "labels.txt", classes_of_categories(categories).class_names)
  assert parse_classes(str(tmp_path / "labels.txt")) == ["cat", "dog"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_parses_class_lists_of_any_system(tmp_path, encoding):
  (tmp_path / "CLASSES.TXT").write_bytes("dog \r\n\r\ncat\t\r\n".encode(encoding))
  assert parse_classes(str(tmp_path / "CLASSES.TXT")) == ["dog", "cat"]
  (tmp_path / "empty.txt").write_text("background\n\n")
  with pytest.raises(DatasetError, match="holds no class name"):
    parse_classes(str(tmp_path / "empty.txt"))


def test_empty_text_selects_no_classes():
  assert parse_classes("") == []


@pytest.mark.parametrize(
  ("text", "message"),
  [("a,,b", "non-empty"), ("a,a", "occurs twice"), ("nowhere.txt", "No such file")],
)
def test_invalid_class_lists_raise(text, message):
  with pytest.raises(DatasetError, match=message):
    parse_classes(text)


def test_background_class_and_missing_classes_raise():
  with pytest.raises(DatasetError, match=r"named 'background'.*pass all others .*'cat, dog'"):
    classes_of_names(["cat", "background", "dog"])
  with pytest.raises(DatasetError, match="no annotation has a box"):
    classes_of_names([])
