"""`random_erasing.trials`, which Model Garden's configuration lacks."""

import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.data.classification.examples import classification_example
from sasa_tf.training import experiment


def erased_images(path, trials):
  """Returns how many of 128 images lost a rectangle, where most rectangles do not fit."""
  params = experiment.load_experiment(
    "sasa_resnet_cifar10",
    (),
    f"task.train_data={{tfds_name: '', input_path: '{path}', global_batch_size: 128, "
    "shuffle_buffer_size: 1, random_erasing: {probability: 1.0, min_area: 0.7, max_area: 0.7, "
    f"min_aspect: 0.2, trials: {trials}}}}}",
    mode="train",
  )
  data = task_factory.get_task(params.task).build_inputs(params.task.train_data)
  images, _ = next(iter(data))
  return int(np.sum(np.std(images, axis=(1, 2)).max(axis=-1) > 0.1))


@pytest.fixture(scope="module")
def gray_images(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("gray") / "train-00000-of-00001.tfrecord")
  png = tf.io.encode_png(np.full([32, 32, 3], 120, np.uint8)).numpy()
  with tf.io.TFRecordWriter(path) as writer:
    for _ in range(128):
      writer.write(classification_example(png, 0, "gray", "gray.png").serialized)
  return path


def test_more_trials_find_more_rectangles_that_fit(gray_images):
  tf.random.set_seed(0)
  one, many = erased_images(gray_images, 1), erased_images(gray_images, 20)
  assert 0 < one < 64
  assert many > 100
