"""Exports take images and class names from the data of the training."""

import tensorflow as tf

from sasa_tf.training import model_labels
from sasa_tf.training.example_images import read_examples
from tests.training import tiny_run


def test_images_and_labels_of_records(tmp_path):
  data = tiny_run.write_data(tmp_path / "digits")
  params = tiny_run.params(data)
  examples = read_examples(params, "validation_data", 50)
  assert len(examples) == 50
  assert {each.label for each in examples} == set(range(10))
  assert all(tf.io.decode_image(each.image).shape[:2] == [8, 8] for each in examples)

  model_labels.copy(params.task.train_data, str(tmp_path))
  names = model_labels.read(str(tmp_path))
  assert names == tuple("0123456789")


def test_data_that_cannot_be_read(tmp_path):
  params = tiny_run.params(tmp_path)
  assert read_examples(params, "train_data", 3) == []
  (tmp_path / "train-0").write_bytes(b"no record")
  assert read_examples(params, "train_data", 3) == []
  model_labels.copy(params.task.train_data, str(tmp_path / "run"))
  assert model_labels.read(str(tmp_path)) is None and model_labels.read(None) is None
