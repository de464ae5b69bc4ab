"""Inputs from TFDS and TFRecords, label validation, and the validation loss."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras
from official.core import exp_factory, task_factory

from sasa_tf.configs import image_classification as configs
from sasa_tf.tasks import image_classification


def task_of(experiment, **data):
  params = exp_factory.get_exp_config(experiment)
  params.task.train_data.override(data)
  params.task.validation_data.override(data)
  return task_factory.get_task(params.task)


def write_records(path, labels):
  rng = np.random.default_rng(0)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for label in labels:
      image = tf.io.encode_png(rng.integers(0, 255, [8, 8, 1], dtype=np.uint8)).numpy()
      features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
      }
      example = tf.train.Example(features=tf.train.Features(feature=features))
      writer.write(example.SerializeToString())


def test_config_is_registered_with_the_task():
  params = exp_factory.get_exp_config("sasa_resnet_digits")
  assert type(params.task) is configs.ImageClassificationTask
  assert type(task_factory.get_task(params.task)) is image_classification.ImageClassificationTask


@pytest.mark.parametrize(
  ("experiment", "size"), [("sasa_resnet_cifar10", 32), ("sasa_resnet_imagenet", 224)]
)
@pytest.mark.parametrize("data", ["train_data", "validation_data"])
def test_tfds(experiment, size, data):
  task = task_of(experiment, global_batch_size=4, shuffle_buffer_size=4)
  # Random images and labels with the features of the dataset.
  with tfds.testing.mock_data(num_examples=8):
    images, labels = next(iter(task.build_inputs(getattr(task.task_config, data))))
  assert images.shape == (4, size, size, 3) and images.dtype == tf.float32
  assert labels.shape == (4,) and labels.dtype == tf.int32
  assert 0 < np.std(images) < 5  # normalized


def test_tfrecords_of_png(tmp_path):
  write_records(tmp_path / "a", [3, 1, 2, 9, 0])
  task = task_of("sasa_resnet_digits", input_path=str(tmp_path / "a"), global_batch_size=2)
  batches = list(task.build_inputs(task.task_config.validation_data))
  assert np.concatenate([labels for _, labels in batches]).tolist() == [3, 1, 2, 9, 0]
  assert [images.shape[0] for images, _ in batches] == [2, 2, 1]  # the last batch is smaller


@pytest.mark.parametrize("label", [10, -1])
def test_invalid_label_raises_an_error(tmp_path, label):
  write_records(tmp_path / "a", [3, 1, label])
  task = task_of("sasa_resnet_digits", input_path=str(tmp_path / "a"), global_batch_size=3)
  dataset = task.build_inputs(task.task_config.validation_data)
  message = f"{image_classification.LABEL_ERROR}: expected 0 to 9"
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    next(iter(dataset))


def test_validation_loss_is_the_mean_over_images():
  task = task_of("sasa_resnet_digits")
  model = tf_keras.Sequential([tf_keras.layers.Flatten(), tf_keras.layers.Dense(10)])
  rng = np.random.default_rng(0)
  images = rng.normal(size=[10, 8, 8, 3]).astype(np.float32)
  labels = rng.integers(0, 10, [10])

  def mean_loss(*sizes):
    mean, start = tf_keras.metrics.Mean(), 0
    for size in sizes:
      batch = images[start : start + size], tf.constant(labels[start : start + size])
      mean.update_state(task.validation_step(batch, model)[task.loss])
      start += size
    return float(mean.result())

  assert mean_loss(4, 4, 2, 0) == pytest.approx(mean_loss(10), rel=1e-6)
