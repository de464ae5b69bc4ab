"""Keras models with the layers convert to LiteRT with its built-in operations only."""

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.bindings import BINDINGS, both_bindings
from tests.layers.convertible_models import LAYERS, convertible_model, random_images


def _from_keras_model(model, directory):
  del directory
  return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def _from_saved_model(model, directory):
  model.export(directory)
  return tf.lite.TFLiteConverter.from_saved_model(directory).convert()


def _export(model, directory):
  path = f"{directory}/model.tflite"
  model.export(path, format="litert", verbose=False)
  with open(path, "rb") as file:
    return file.read()


def assert_equal_in_litert(content, model, images):
  """Compares a LiteRT model with the Keras model, for a batch that it was not converted for."""
  interpreter = tf.lite.Interpreter(model_content=content)
  (source,), results = interpreter.get_input_details(), interpreter.get_output_details()
  interpreter.resize_tensor_input(source["index"], images.shape)
  interpreter.allocate_tensors()  # fails for operations that are not built in
  interpreter.set_tensor(source["index"], images)
  interpreter.invoke()
  received = {a.shape: a for a in (interpreter.get_tensor(r["index"]) for r in results)}
  for expected in tf.nest.flatten(model(images)):
    np.testing.assert_allclose(received[tuple(expected.shape)], expected, atol=1e-5, rtol=1e-5)


@both_bindings
@pytest.mark.parametrize("name", LAYERS)
def test_converts_with_built_in_operations(keras_api, name, tmp_path):
  model = convertible_model(keras_api, name)
  content = _from_keras_model(model, str(tmp_path))
  assert_equal_in_litert(content, model, random_images(model, 3))


@both_bindings
@pytest.mark.parametrize("name", ["relative", "stem", "augmented", "non-local"])
def test_exported_model_converts(keras_api, name, tmp_path):
  model = convertible_model(keras_api, name)
  content = _from_saved_model(model, str(tmp_path / "saved"))
  assert_equal_in_litert(content, model, random_images(model, 3))


@pytest.mark.parametrize("name", ["relative", "stem", "augmented", "non-local"])
def test_keras_exports_to_litert(name, tmp_path):
  model = convertible_model("keras", name)
  try:
    content = _export(model, str(tmp_path))
  except ValueError as error:
    if "format" not in str(error):
      raise
    pytest.skip("this version of Keras does not export to LiteRT")
  assert_equal_in_litert(content, model, random_images(model, 3))


@pytest.mark.thorough
@both_bindings
def test_backbone_converts(keras_api):
  keras, binding = BINDINGS[keras_api]
  keras.utils.set_random_seed(0)
  model = binding.SASAResNet(
    26,
    stem="attention",
    attention_groups=(4,),
    width_multiplier=0.0625,
    num_heads=2,
    input_shape=(32, 32, 3),
    zero_init_residual=False,
  )
  assert_equal_in_litert(_from_keras_model(model, None), model, random_images(model, 2))
