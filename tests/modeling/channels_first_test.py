"""Keras's global `image_data_format` does not change layers and models."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.bindings import BINDINGS, both_bindings

SMALL = {"num_heads": 2, "width_multiplier": 0.0625, "zero_init_residual": False}
ATTENTION = {"num_filters": 8, "kernel_size": 3, "num_heads": 2, "max_level": 5}
LEVELS = {"3": (None, 16, 12, 4), "4": (None, 8, 6, 6)}


def _layer(name, **arguments):
  def build(keras, binding):
    inputs = keras.Input([8, 6, 4])
    return keras.Model(inputs, getattr(binding, name)(**arguments)(inputs))

  return build


# Name -> (Keras module, binding) -> a model.
MODELS = {
  "attention": _layer("LocalSelfAttention2D", filters=8, kernel_size=3, num_heads=2, strides=2),
  "stem": _layer("AttentionStem", filters=8, num_heads=2),
  "augmented": _layer(
    "AttentionAugmentedConv2D", filters=8, key_filters=8, value_filters=4, num_heads=2
  ),
  "non-local": _layer("NonLocal2D", gamma_initializer="ones"),
  "squeeze-excitation": _layer("SqueezeExcitation2D", ratio=2),
  "classifier": lambda keras, binding: binding.SASAResNetClassifier(
    26, 5, (16, 24, 3), stem="attention", attention_groups=(4,), pooling="max", **SMALL
  ),
  "backbone": lambda keras, binding: binding.SASAResNet(
    26, input_shape=(32, 24, 3), attention_groups=(), baseline="squeeze_excitation", **SMALL
  ),
  "pyramid": lambda keras, binding: binding.SASAFPN(LEVELS, spatial="conv", **ATTENTION),
  "head": lambda keras, binding: binding.RetinaNetHead(
    {level: (*shape[:3], 8) for level, shape in LEVELS.items()},
    num_classes=3,
    num_anchors=2,
    num_layers=1,
    num_filters=8,
    spatial="conv",
  ),
}


@contextlib.contextmanager
def _channels_first(keras):
  config = keras.backend if hasattr(keras.backend, "set_image_data_format") else keras.config
  before = config.image_data_format()
  config.set_image_data_format("channels_first")
  try:
    yield
  finally:
    config.set_image_data_format(before)


def _images(model):
  generator = np.random.default_rng(0)

  def image(tensor):
    return generator.normal(size=(2, *tensor.shape[1:])).astype("float32")

  inputs = model.input
  if isinstance(inputs, dict):
    return {name: image(tensor) for name, tensor in inputs.items()}
  return image(inputs)


@both_bindings
@pytest.mark.parametrize("name", MODELS)
def test_models_are_the_same(keras_api, name):
  keras, binding = BINDINGS[keras_api]
  expected = MODELS[name](keras, binding)
  with _channels_first(keras):
    model = MODELS[name](keras, binding)
    images = _images(expected)
    model.set_weights(expected.get_weights())
    received = tf.nest.flatten(model(images, training=False))
    shapes = [tuple(w.shape) for w in model.weights]
  assert shapes == [tuple(w.shape) for w in expected.weights]
  for a, b in zip(received, tf.nest.flatten(expected(images, training=False)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
