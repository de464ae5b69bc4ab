"""Keras's weight quantization names the layers that it does not change."""

import keras
import numpy as np
import pytest

from sasa_tf.keras import LocalSelfAttention2D, NonLocal2D, UpsampleAdd2D
from sasa_tf.layers import warn_about_quantization


def test_quantize_names_the_layers_that_stay_float():
  inputs = keras.Input([4, 4, 8])
  attended = LocalSelfAttention2D(8, 3, 2, name="attend")(inputs)
  inner = keras.Model(inputs, attended)
  x = NonLocal2D(name="context")(inner(inputs))
  x = UpsampleAdd2D()([x[:, ::2, ::2], x])  # without weights
  x = keras.layers.Dense(4, name="classes")(keras.layers.GlobalAveragePooling2D()(x))
  model = keras.Model(inputs, x)
  with pytest.warns(UserWarning, match="stay float: attend, context[.]"):
    model.quantize("int8")
  assert model.get_layer("classes").quantization_mode == "int8"
  assert np.isfinite(model(np.ones([1, 4, 4, 8], "float32"))).all()


def test_models_without_these_layers_are_not_named(recwarn):
  model = keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])
  model.quantize("int8")
  assert not [w for w in recwarn if "sasa_tf" in str(w.message)]


def test_quantization_is_wrapped_once():
  method = keras.Model.quantize
  warn_about_quantization(keras)
  assert keras.Model.quantize is method
