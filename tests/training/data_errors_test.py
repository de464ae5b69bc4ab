"""Which record, or which key of the configuration, an error of the input pipeline names."""

import pytest
import tensorflow as tf

from sasa_tf.errors import UserError, WorkerLostError
from sasa_tf.tasks.label_errors import LABEL_ERROR
from sasa_tf.training.resilience import corrupt_records
from sasa_tf.training.resilience.data_errors import translate_data_errors
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


def test_negative_label_is_not_reported_as_a_missing_one(tmp_path):
  features = {
    "image/encoded": tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[image_files.png(seed=0)])
    ),
    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[-1])),
  }
  with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
    writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
  task = tiny_run.params(tmp_path).task
  received = f"{LABEL_ERROR}: expected 0 to 9] [Condition x >= 0 did not hold element-wise:] [-1]"
  with (
    pytest.raises(UserError, match=r"model classes: expected 0 to 9; received -1\. task\.model"),
    translate_data_errors(task, "train"),
  ):
    raise tf.errors.InvalidArgumentError(None, None, f"Iterator::Root: {received} [[{{{{node}}}}]]")


def test_end_of_the_training_data_names_its_keys():
  message = "End of sequence [[{{node IteratorGetNext}}]]"
  task = tiny_run.params("unused").task
  with (
    pytest.raises(UserError, match=r"task\.train_data ended before"),
    translate_data_errors(task, "train"),
  ):
    raise tf.errors.OutOfRangeError(None, None, message)
  with pytest.raises(tf.errors.OutOfRangeError), translate_data_errors(task, "eval"):
    raise tf.errors.OutOfRangeError(None, None, message)


def test_records_of_another_task_are_named():
  message = (
    "Iterator::Root: Feature: image/source_id (data type: string) is required but could not be"
  )
  with (
    pytest.raises(UserError, match="has no feature image/source_id, which classification needs"),
    translate_data_errors(tiny_run.params("unused").task, "train"),
  ):
    raise tf.errors.InvalidArgumentError(None, None, message)


def test_restarted_dispatcher_of_a_data_service():
  task = tiny_run.params(
    "unused",
    **{
      "task.train_data.enable_tf_data_service": True,
      "task.train_data.tf_data_service_address": "grpc://host:5050",
    },
  ).task
  lost = tf.errors.NotFoundError(None, None, "Failed to get tasks: Unknown iteration client id 7.")
  with (
    pytest.raises(WorkerLostError, match="grpc://host:5050 was restarted"),
    translate_data_errors(task, "train"),
  ):
    raise lost
  with pytest.raises(tf.errors.NotFoundError), translate_data_errors(task, "train"):
    raise tf.errors.NotFoundError(None, None, "no such file")
