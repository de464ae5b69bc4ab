"""Both faces of the library, for tests that hold for each."""

import keras
import pytest
import tf_keras

import sasa_tf.keras
import sasa_tf.tf_keras

FACES = {"keras": (keras, sasa_tf.keras), "tf_keras": (tf_keras, sasa_tf.tf_keras)}

both = pytest.mark.parametrize("flavour", FACES)


def tf_variables(flavour, weights):
  """TensorFlow's variables, which Keras 3 has inside of its own."""
  return [w.value for w in weights] if flavour == "keras" else list(weights)
