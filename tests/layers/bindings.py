"""The Keras bindings that are installed, for tests that run with each of them."""

import importlib.util

import keras
import pytest

import sasa_tf.keras

BINDINGS = {"keras": (keras, sasa_tf.keras)}
if importlib.util.find_spec("tf_keras"):
  import tf_keras

  import sasa_tf.tf_keras

  BINDINGS["tf_keras"] = (tf_keras, sasa_tf.tf_keras)

needs_tf_keras = pytest.mark.skipif(
  "tf_keras" not in BINDINGS, reason="tf_keras comes with the extra garden"
)
both_bindings = pytest.mark.parametrize(
  "keras_api", ["keras", pytest.param("tf_keras", marks=needs_tf_keras)]
)


def tf_variables(keras_api, weights):
  """Returns the TensorFlow variables, which Keras 3 wraps in its own."""
  return [w.value for w in weights] if keras_api == "keras" else list(weights)
