"""Layers in full-integer LiteRT models lose about as little precision as Keras's own attention."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import keras as sasa
from sasa_tf.ops import tracing_for_export


class KerasAttention(keras.layers.Layer):
  """`keras.layers.MultiHeadAttention` of all pixels."""

  def __init__(self, num_heads, key_dim):
    super().__init__()
    self.attend = keras.layers.MultiHeadAttention(num_heads, key_dim)

  def call(self, inputs):
    pixels = tf.reshape(inputs, [inputs.shape[0], -1, inputs.shape[-1]])
    return self.attend(pixels, pixels)


def int8_model(function, examples):
  """Converts a function of one image to LiteRT with int8 operations only."""
  with tracing_for_export():
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(examples[0].shape))
  converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: ([example] for example in examples)
  converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
  return converter.convert()


def run_in_litert(content, images):
  """Returns the outputs of a LiteRT model of one image, for each of the images."""
  interpreter = tf.lite.Interpreter(model_content=content)
  interpreter.allocate_tensors()
  source, result = (
    details[0]["index"]
    for details in (interpreter.get_input_details(), interpreter.get_output_details())
  )
  outputs = []
  for image in images:
    interpreter.set_tensor(source, image)
    interpreter.invoke()
    outputs.append(interpreter.get_tensor(result))
  return np.stack(outputs)


def relative_error(layer, shape):
  """Returns the error (root mean square) of the int8 layer, in standard deviations of the output.

  Inputs are normal, with the same calibration for all layers.
  """
  images = np.random.default_rng(0).normal(size=(24, 1, *shape)).astype("float32")
  expected = np.stack([np.asarray(layer(image)) for image in images[16:]])
  received = run_in_litert(int8_model(layer, images[:16]), images[16:])
  return np.sqrt(np.mean((received - expected) ** 2)) / expected.std()


@pytest.fixture(scope="module", params=[(14, 14, 32), (7, 7, 64)], ids=["14x14", "7x7"])
def keras_error(request):
  """The shape of an image, and the error of Keras's attention."""
  keras.utils.set_random_seed(1)
  shape = request.param
  return shape, relative_error(KerasAttention(4, shape[-1] // 4), shape)


LAYERS = {
  "zero border": lambda channels: sasa.LocalSelfAttention2D(channels, num_heads=4),
  "mask": lambda channels: sasa.LocalSelfAttention2D(channels, num_heads=4, border="mask"),
  "k 3": lambda channels: sasa.LocalSelfAttention2D(channels, 3, num_heads=4),
  "stem": lambda channels: sasa.AttentionStem(channels),  # 14 and 7 pixels need padding
  "non-local": lambda _: sasa.NonLocal2D(gamma_initializer="ones"),
  "augmented": lambda channels: sasa.AttentionAugmentedConv2D(
    channels, key_filters=channels, value_filters=channels, num_heads=4
  ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_error_is_at_most_twice_that_of_keras(keras_error, name):
  shape, limit = keras_error
  keras.utils.set_random_seed(1)
  error = relative_error(LAYERS[name](shape[-1]), shape)
  assert error <= 2 * limit, f"{error:.3f}, and {limit:.3f} of Keras"
