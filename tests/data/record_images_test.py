"""Decompression bombs in records are rejected before a training, and skipped on request."""

import pytest
import tensorflow as tf

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity import corrupt_records
from sasa_tf.data.integrity.record_images import check_image
from sasa_tf.data.integrity.record_sample import sample_records
from sasa_tf.data.integrity.record_validation import DETECTION_SCHEMA, RecordSchema
from tests.data import image_bombs

SMALL = tf.io.encode_jpeg(tf.zeros([8, 9, 3], tf.uint8)).numpy()
SIDE = 23_000


def write(path, images, key="image/encoded"):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for image in images:
      features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
      }
      example = tf.train.Example(features=tf.train.Features(feature=features))
      writer.write(example.SerializeToString())
  return str(path)


def check_images(files, image_key):
  for record in sample_records(files):
    check_image(record, image_key)


@pytest.mark.parametrize("make", [image_bombs.png, image_bombs.jpeg])
def test_bombs_are_named_with_their_record(tmp_path, make):
  path = write(tmp_path / "a", [SMALL, make(SIDE, SIDE)], "image/raw")
  with pytest.raises(
    DatasetError, match=rf"{path}, record 1 \(from 0\): image/raw is a decompress"
  ):
    check_images([path], "image/raw")
  check_images([path], "image/encoded")


def test_small_images_and_broken_records_are_accepted(tmp_path):
  broken = tmp_path / "b"
  broken.write_bytes(b"\0broken")
  check_images([write(tmp_path / "a", [SMALL, b"", b"text"]), str(broken)], "image/encoded")


@pytest.mark.parametrize("schema", [RecordSchema(), DETECTION_SCHEMA._replace(label_key=None)])
@pytest.mark.parametrize("make", [image_bombs.png, image_bombs.jpeg])
def test_bombs_are_corrupt_records(tmp_path, schema, make):
  schema = schema._replace(box_keys=())
  path = write(tmp_path / "a", [SMALL, make(SIDE, SIDE), SMALL])
  (found,) = corrupt_records.find_corrupt_records(path, "", schema)
  assert found.record == 1 and "image/encoded is a decompression bomb" in found.problem
