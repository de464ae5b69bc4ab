"""TFRecords of other images than those of the annotation file are rejected before a training."""

import json
import os

import pytest
import tensorflow as tf

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity.record_image_ids import check_image_ids


def write(path, ids):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for value in ids:
      feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
      features = tf.train.Features(feature={"image/source_id": feature})
      writer.write(tf.train.Example(features=features).SerializeToString())
  return [str(path)]


@pytest.mark.parametrize(
  "content", [{}, {"images": [{"id": 3}, {"id": 9}]}, {"images": [{"id": "7"}, {"id": 9}]}]
)
def test_other_images_are_named(content, tmp_path):
  files = write(tmp_path / "a", [b"7", b"9", b"8"])
  annotations = tmp_path / "a.json"
  annotations.write_text(json.dumps(content))
  with pytest.raises(DatasetError, match=rf"{annotations} has no images with the ids 7, .*first 3"):
    check_image_ids(str(annotations), files)


def test_annotated_images_and_unreadable_files_are_accepted(tmp_path):
  """What cannot be read is reported by the evaluation, with its name."""
  files = write(tmp_path / "a", [b"7", b"x"])
  annotations = tmp_path / "a.json"
  for text in ('{"images": [{"id": 7}, {"id": 8}]}', "nonsense {", "[]"):
    annotations.write_text(text)
    check_image_ids(str(annotations), files)


def test_remote_annotations_that_cannot_be_reached_are_an_error_of_the_machine():
  with pytest.raises(tf.errors.OpError, match=r"s3://bucket/a\.json"):
    check_image_ids("s3://bucket/a.json", [])


def test_missing_remote_annotations_are_named(monkeypatch):
  monkeypatch.setattr(tf.io.gfile, "exists", lambda path: False)
  with pytest.raises(DatasetError, match=r"annotation_file=gs://bucket/a\.json does not exist"):
    check_image_ids("gs://bucket/a.json", [])


def test_pipes_and_missing_files_are_named_without_reading_them(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  for name, problem in (("pipe", "is no file"), ("missing", "does not exist"), (".", "is no file")):
    with pytest.raises(
      DatasetError, match=f"annotation_file={tmp_path}/{name} {problem}; expected"
    ):
      check_image_ids(f"{tmp_path}/{name}", [])
