"""Attention maps of SavedModels and model directories."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from official.core import exp_factory, task_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.analysis import attention_maps
from sasa_tf.analysis.attention.trained_model import TrainedModel
from sasa_tf.errors import UserError
from sasa_tf.serving.export import export_model

SIZE = 8


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """Returns a Keras model, and the directory of its SavedModel."""
  folder = tmp_path_factory.mktemp("exported")
  params = exp_factory.get_exp_config("sasa_resnet_digits")
  backbone = {"width_multiplier": 0.0625, "attention_groups": [3], "num_heads": 2}
  params.task.model.backbone.sasa_resnet.override(backbone)
  model = task_factory.get_task(params.task).build_model()
  random = np.random.default_rng(0)
  for weight in model.variables:  # also batch norm, whose initial values are those of all layers
    weight.assign_add(random.uniform(0, 0.1, weight.shape))
  export_model(
    params,
    weights=tf.train.Checkpoint(model=model).write(str(folder / "checkpoint")),
    outputs={"saved_model": folder / "saved_model"},
    class_names=[f"digit {i}" for i in range(10)],
  )
  return model, folder / "saved_model"


def test_maps_of_a_saved_model_are_those_of_the_model(exported):
  model, path = exported
  images = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
  expected = attention_maps(model, TrainedModel.normalize(images), pixels=[(0, 0), (7, 3)])
  received = attention_maps(path, images, pixels=[(0, 0), (7, 3)])
  assert list(received) == list(expected) and len(expected) == 4
  for name, layer in received.items():
    np.testing.assert_array_equal(layer.weights, expected[name].weights)


def test_images_and_predictions_are_those_of_the_saved_model(exported, tmp_path):
  _, path = exported
  pixels = np.random.default_rng(1).integers(0, 256, (11, 9, 3), np.uint8)
  encoded = tf.io.encode_png(pixels)
  (tmp_path / "image.png").write_bytes(encoded.numpy())
  trained = TrainedModel.from_saved_model(path)
  image = trained.read_image(str(tmp_path / "image.png"))
  assert image.pixels.shape == (SIZE, SIZE, 3)
  assert trained.name_of(3) == "digit 3" and not trained.is_detector
  signature = tf.saved_model.load(str(path)).signatures["image_bytes"]
  expected = signature(encoded[None])["probs"][0].numpy()
  np.testing.assert_allclose(trained.predict(image)["probs"], expected, rtol=1e-4)


def test_foreign_saved_model_is_explained(tmp_path):
  tf.saved_model.save(tf.Module(), str(tmp_path))
  with pytest.raises(UserError, match=r"not a SavedModel of sasa_tf.* no params\.yaml"):
    attention_maps(str(tmp_path), np.zeros((1, SIZE, SIZE, 3)))


def test_weights_of_another_model_are_explained(exported, tmp_path):
  _, path = exported
  other = tf.train.Checkpoint(weights=[tf.Variable(1.0), tf.Variable([2.0, 3.0])])
  (tmp_path / "variables").mkdir()
  other.write(str(tmp_path / "variables/variables"))
  for name in ("saved_model.pb", "params.yaml"):
    (tmp_path / name).write_bytes((path / name).read_bytes())
  with pytest.raises(UserError, match=r"do not fit the model of params\.yaml.*Export the model"):
    attention_maps(tmp_path, np.zeros((1, SIZE, SIZE, 3)))


def test_images_of_another_size_are_explained(exported):
  with pytest.raises(UserError, match=r"\[None, 8, 8, 3\].*received \[1, 8, 8, 1\]"):
    attention_maps(exported[1], np.zeros((1, SIZE, SIZE, 1)))


def test_file_that_is_no_image_is_explained(exported, tmp_path):
  trained = TrainedModel.from_saved_model(exported[1])
  (tmp_path / "x.png").write_text("text")
  with pytest.raises(UserError, match="cannot be decoded: expected a JPEG"):
    trained.read_image(str(tmp_path / "x.png"))
  with pytest.raises(UserError, match="No such file"):
    trained.read_image(str(tmp_path / "y.png"))


def test_other_numbers_of_class_names_are_explained(exported, tmp_path):
  path = shutil.copytree(exported[1], tmp_path / "copy")
  labels = path / "assets.extra" / "labels.txt"
  labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:7]))
  with pytest.raises(UserError, match=r"labels\.txt has 7 class names, but the model has 10 cla"):
    TrainedModel.from_saved_model(path)
