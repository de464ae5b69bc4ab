"""Which record, or which key of the configuration, an error of the input pipeline names."""

import pytest
import tensorflow as tf

from sasa_tf.training.resilience import corrupt_records
from tests.data import image_files
from tests.training import tiny_run


@pytest.mark.parametrize("key", ["image/encoded", "custom/encoded"])
def test_configured_features_are_named(key, tmp_path):
  with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
    values = {"image/encoded": image_files.png(seed=0) if key == "custom/encoded" else b"text"}
    features = {
      name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
      for name, value in values.items()
    }
    writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
  params = tiny_run.params(tmp_path, **{"task.train_data.image_field_key": key})
  message = str(corrupt_records.find_cause("IteratorGetNext", params.task, "train"))
  assert f"{tmp_path}/train-0, record 0" in message and key in message
  assert ("Check task.train_data.image_field_key=custom/encoded." in message) == (
    key == "custom/encoded"
  )
