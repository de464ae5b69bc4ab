"""Records whose boxes are not fractions of the image are rejected before a training."""

import pytest
import tensorflow as tf

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity.record_boxes import check_boxes

VALID = (0.1, 0.2, 0.5, 1.01)


def write(path, boxes, labels=None):
  """Writes one record per box."""
  with tf.io.TFRecordWriter(str(path)) as writer:
    for box in boxes:
      features = {
        f"image/object/bbox/{name}": tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
      }
      features["image/object/class/label"] = tf.train.Feature(
        int64_list=tf.train.Int64List(value=[1] if labels is None else labels)
      )
      example = tf.train.Example(features=tf.train.Features(feature=features))
      writer.write(example.SerializeToString())
  return [str(path)]


@pytest.mark.parametrize(
  ("box", "shown"),
  [
    ((10, 20, 50, 90), r"\(10, 20, 50, 90\)"),
    ((0.5, 0.2, 0.1, 0.9), r"\(0\.5, 0\.2, 0\.1, 0\.9\)"),
    ((float("nan"), 0.2, 0.5, 0.9), r"\(nan, "),
    ((0.1, 0.2, float("inf"), 0.9), "inf"),
  ],
)
def test_boxes_that_cannot_be_used(box, shown, tmp_path):
  files = write(tmp_path / "a", [VALID, box, box])
  with pytest.raises(
    DatasetError, match=rf"2 of the first 3 boxes .*a, record 1 .*{shown}.*pixels"
  ):
    check_boxes(files)


def test_boxes_without_labels(tmp_path):
  files = write(tmp_path / "a", [VALID], labels=[1, 2])
  with pytest.raises(DatasetError, match="1, 1, 1, 1 corners and 2 labels"):
    check_boxes(files)


def test_single_invalid_boxes_and_other_records_pass(tmp_path):
  check_boxes(write(tmp_path / "a", [VALID, VALID, (0.5, 0.5, 0.5, 0.5)]))
  with tf.io.TFRecordWriter(str(tmp_path / "b")) as writer:
    writer.write(tf.train.Example().SerializeToString())
    writer.write(b"no example")
  check_boxes([str(tmp_path / "b")])
