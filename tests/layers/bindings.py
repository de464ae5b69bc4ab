"""The two Keras bindings, for tests that run with each of them."""

import keras
import pytest
import tf_keras

import sasa_tf.keras
import sasa_tf.tf_keras

BINDINGS = {"keras": (keras, sasa_tf.keras), "tf_keras": (tf_keras, sasa_tf.tf_keras)}

both_bindings = pytest.mark.parametrize("keras_api", BINDINGS)


def tf_variables(keras_api, weights):
  """Returns the TensorFlow variables, which Keras 3 wraps in its own."""
  return [w.value for w in weights] if keras_api == "keras" else list(weights)
