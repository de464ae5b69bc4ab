"""Presets: saved by one Keras version, loaded by both."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

import sasa_tf.keras
from sasa_tf.errors import UserError
from sasa_tf.modeling.presets import find_preset, packaged_presets, preset
from sasa_tf.modeling.weights import (
  assign_weights,
  copy_weights,
  named_weights,
  weight_values,
)
from tests.layers.bindings import BINDINGS, both_bindings, needs_tf_keras

SMALL = {
  "model_id": 26,
  "num_classes": 3,
  "input_shape": (16, 16, 3),
  "width_multiplier": 0.25,
  "stem": "conv_small",
  "attention_groups": (4,),
  "kernel_size": (3, 5),
}
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")


def classifier(keras_api, **arguments):
  return BINDINGS[keras_api][1].SASAResNetClassifier(**{**SMALL, **arguments})


def with_statistics(model):
  """Returns the model with weights that are no initial values, for batch norm too."""
  random = np.random.default_rng(1)
  for weight in model.weights:
    weight.assign(np.abs(random.normal(0.5, 0.1, weight.shape)))
  return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Returns a classifier of Keras 3 and its preset."""
  model = with_statistics(classifier("keras"))
  path = tmp_path_factory.mktemp("presets") / "small"
  model.save_to_preset(path, labels=["a", "b", "c"], crop_fraction=0.875, model_card="# Card\n")
  return model, path


@both_bindings
def test_both_keras_versions_load_a_preset(keras_api, saved):
  model, path = saved
  loaded = BINDINGS[keras_api][1].SASAResNetClassifier.from_preset(path)
  np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-4)
  assert weight_values(loaded).keys() == weight_values(model).keys()


@needs_tf_keras
def test_preset_of_tf_keras_is_equal(saved, tmp_path):
  model, path = saved
  other = classifier("tf_keras")
  copy_weights(model, other)
  other.save_to_preset(tmp_path / "other", labels=["a", "b", "c"], crop_fraction=0.875)
  assert (tmp_path / "other/config.json").read_text() == (path / "config.json").read_text()
  expected = find_preset(path).read_weights()
  for name, value in find_preset(tmp_path / "other").read_weights().items():
    np.testing.assert_array_equal(value, expected[name])


def test_preset_has_labels_preprocessing_and_card(saved):
  found = find_preset(saved[1])
  assert found.labels == ("a", "b", "c")
  assert found.preprocessing == {"image_size": [16, 16], "crop_fraction": 0.875}
  assert (found.path / "README.md").read_text() == "# Card\n"


def test_overrides_and_random_weights(saved):
  path = saved[1]
  loaded = sasa_tf.keras.SASAResNetClassifier.from_preset(path, input_shape=(32, 32, 3))
  assert loaded.input_shape == (None, 32, 32, 3)
  random = sasa_tf.keras.SASAResNetClassifier.from_preset(path, load_weights=False, num_classes=9)
  assert random.output_shape == (None, 9)
  with pytest.raises(
    ValueError, match=r"classifier/kernel has shape \(512, 3\) \(expected \(512, 9"
  ):
    sasa_tf.keras.SASAResNetClassifier.from_preset(path, num_classes=9)
  with pytest.raises(ValueError, match="unexpected keyword argument 'kernel'"):
    sasa_tf.keras.SASAResNetClassifier.from_preset(path, kernel=3)


def test_backbone_of_a_classifier(saved):
  model, path = saved
  backbone = sasa_tf.keras.SASAResNet.from_preset(path)
  np.testing.assert_allclose(backbone(IMAGES)["5"], model.backbone(IMAGES)["5"], rtol=1e-5)
  with pytest.raises(
    ValueError, match=r"2 of \d+ weights .*classifier/bias is no weight of the mo"
  ):
    assign_weights(backbone, weight_values(model))
  backbone.save_to_preset(path.with_name("backbone"))
  with pytest.raises(UserError, match="is of the class SASAResNet, but SASAResNetClassifier"):
    sasa_tf.keras.SASAResNetClassifier.from_preset(path.with_name("backbone"))


def test_half_precision_halves_the_file(saved, tmp_path):
  model, path = saved
  model.save_to_preset(tmp_path / "half", dtype="float16")
  sizes = [(directory / "weights.npz").stat().st_size for directory in (tmp_path / "half", path)]
  assert sizes[0] < 0.6 * sizes[1]
  loaded = sasa_tf.keras.SASAResNetClassifier.from_preset(tmp_path / "half")
  assert {weight.dtype for weight in loaded.weights} == {"float32"}
  np.testing.assert_allclose(
    weight_values(loaded)["classifier/kernel"], weight_values(model)["classifier/kernel"], rtol=1e-3
  )


def test_other_directories_are_not_written_to(saved, tmp_path):
  (tmp_path / "notes.txt").write_text("keep")
  with pytest.raises(UserError, match="exists and holds no preset"):
    saved[0].save_to_preset(tmp_path)
  assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_unknown_preset_names_the_nearest(saved, monkeypatch, tmp_path):
  monkeypatch.setattr(preset, "_DIRECTORY", saved[1].parent)
  assert "small" in packaged_presets()
  assert "small" in sasa_tf.keras.SASAResNetClassifier.presets()
  (tmp_path / "params.yaml").touch()
  with pytest.raises(UserError, match=f"training: write .*--model_dir={tmp_path} --format=preset"):
    find_preset(tmp_path)
  with pytest.raises(UserError, match=r"'smal' is neither a preset .* Did you mean 'small'"):
    find_preset("smal")


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("config.json", b"", "config.json cannot be read"),
    ("config.json", b"[]", "class_name, config, labels, preprocessing missing"),
    ("config.json", b"\xff", "config.json cannot be read"),
    ("weights.npz", b"", "weights.npz cannot be read"),
    ("weights.npz", b"PK\x03\x04", "weights.npz cannot be read"),
    ("weights.npz", pickle.dumps({}), "not a complete archive of NumPy"),
    ("weights.npz", None, "No such file or directory"),
  ],
)
def test_broken_files_are_named(file, content, message, saved, tmp_path):
  path = shutil.copytree(saved[1], tmp_path / "broken")
  if content is None:
    (path / file).unlink()
  else:
    (path / file).write_bytes(content)
  with pytest.raises(UserError, match=message.replace(".", r"\.")):
    sasa_tf.keras.SASAResNetClassifier.from_preset(path)


def test_pipes_and_weights_of_other_types_are_named(saved, tmp_path):
  path = shutil.copytree(saved[1], tmp_path / "broken")
  (path / "weights.npz").unlink()
  os.mkfifo(path / "weights.npz")
  with pytest.raises(UserError, match=r"weights\.npz cannot be read .*a pipe or a device"):
    find_preset(path).read_weights()
  (path / "weights.npz").unlink()
  for value in (np.array(["a"]), np.array([1]), np.array([1j]), np.array([None])):
    np.savez(path / "weights.npz", **{"stem/kernel": value})
    with pytest.raises(UserError, match=r"weights\.npz cannot be read"):
      find_preset(path).read_weights()


def test_weights_of_another_architecture_are_rejected(saved, tmp_path):
  path = shutil.copytree(saved[1], tmp_path / "other")
  content = json.loads((path / "config.json").read_text())
  content["config"]["attention_groups"] = [3, 4]
  (path / "config.json").write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r"weights do not fit the model .* is missing"):
    sasa_tf.keras.SASAResNetClassifier.from_preset(path)


@needs_tf_keras
@pytest.mark.parametrize("baseline", ["squeeze_excitation", "non_local", "attention_augmented"])
def test_names_of_weights_are_equal_and_unique(baseline):
  models = [classifier(api, attention_groups=(), baseline=baseline) for api in BINDINGS]
  names = [named_weights(model) for model in models]
  assert names[0].keys() == names[1].keys()
  assert len(names[0]) == len(models[0].weights)
