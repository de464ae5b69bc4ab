"""labels.txt that does not belong to the records is noticed."""

import pathlib

import pytest
import tensorflow as tf

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity import raw_records
from sasa_tf.data.integrity.record_labels import check_label_range, check_labels
from sasa_tf.data.integrity.record_sample import sample_records

NAMES = ("cat", "dog", "owl")


def record(labels, names, prefix="image/class"):
  feature = {f"{prefix}/label": tf.train.Feature(int64_list=tf.train.Int64List(value=labels))}
  if names is not None:
    texts = tf.train.BytesList(value=[name.encode() for name in names])
    feature[f"{prefix}/text"] = tf.train.Feature(bytes_list=texts)
  return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write(path, records, compression=""):
  with tf.io.TFRecordWriter(str(path), compression) as writer:
    for content in records:
      writer.write(content)
  return str(path)


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("prefix", ["image/class", "image/object/class"])
def test_labels_of_the_records_are_accepted_and_others_rejected(tmp_path, prefix, compression):
  first = write(tmp_path / "a", [record([0], ["cat"], prefix)], compression)
  second = write(tmp_path / "b", [record([2], ["owl"], prefix)], compression)
  check_labels("labels.txt", NAMES, [first, second], compression)
  message = "labels.txt does not belong to the records: .*b names the class of label 2 'owl'"
  with pytest.raises(DatasetError, match=f"{message}, and labels.txt names it 'dog'"):
    check_labels("labels.txt", ("cat", "owl", "dog"), [first, second], compression)
  with pytest.raises(DatasetError, match=f"{message}, and labels.txt has no such line"):
    check_labels("labels.txt", ("cat", "dog"), [first, second], compression)


@pytest.mark.parametrize(
  "content",
  [[], [record([1], None)], [b"no example"], [record([7, 8], ["cat"])], [record([], [])]],
  ids=["empty", "no names", "no example", "other number of names", "no labels"],
)
def test_records_without_class_names_are_not_compared(tmp_path, content):
  check_labels("labels.txt", NAMES, [write(tmp_path / "a", content)])


def test_truncated_file_is_not_compared(tmp_path):
  path = tmp_path / "a"
  write(path, [record([0], ["dog"])])
  path.write_bytes(path.read_bytes()[:-3])
  check_labels("labels.txt", NAMES, [str(path)])


def test_a_sample_of_many_files_is_read(tmp_path, monkeypatch):
  opened, read = [], raw_records.read
  monkeypatch.setattr(
    raw_records, "read", lambda file, *rest: opened.append(file) or read(file, *rest)
  )
  files = [write(tmp_path / f"{i:03d}", [record([0], ["cat"])]) for i in range(33)]
  check_labels("labels.txt", NAMES, files)
  assert 5 <= len(opened) <= 8 and set(opened) <= set(files)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_records_are_read_as_tensorflow_does(tmp_path, compression):
  contents = [b"", b"a", bytes(range(256)) * 9]
  path = write(tmp_path / "a", contents, compression)
  dataset = tf.data.TFRecordDataset(path, compression)
  assert list(raw_records.read(path, compression)) == contents == list(dataset.as_numpy_iterator())
  assert not raw_records.is_empty(path, compression)
  assert raw_records.is_empty(write(tmp_path / "b", [], compression), compression)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_corrupt_files_end_without_an_error(tmp_path, compression):
  path = tmp_path / "a"
  records = [b"first", b"second" * 99]
  whole = pathlib.Path(write(path, records, compression)).read_bytes()
  for content in [whole[:-9], whole[:20], b"text, not a record", b"\xff" * 40]:
    path.write_bytes(content)
    found = list(raw_records.read(str(path), compression))
    assert found == records[: len(found)]
    assert not raw_records.is_empty(str(path), compression)


def check_ranges(file, label_key):
  for record in sample_records([file]):
    check_label_range(record, label_key)


@pytest.mark.parametrize("label", [2**31, 2**40, -(2**31) - 1])
def test_labels_that_a_cast_would_change_are_named(tmp_path, label):
  file = write(tmp_path / "a", [record([2**31 - 1], None), record([label], None)])
  with pytest.raises(DatasetError, match=rf"{file}, record 1 \(from 0\): image/class/label is "):
    check_ranges(file, "image/class/label")
  check_ranges(file, "image/object/class/label")
