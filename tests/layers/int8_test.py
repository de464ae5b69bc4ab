"""Layers in full-integer LiteRT models lose about as little precision as Keras's own attention."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import keras as sasa
from sasa_tf.ops.blocked import export_attention
from tests.layers.int8_models import int8_model, run_in_litert


class KerasAttention(keras.layers.Layer):
  """`keras.layers.MultiHeadAttention` of all pixels."""

  def __init__(self, num_heads, key_dim):
    super().__init__()
    self.attend = keras.layers.MultiHeadAttention(num_heads, key_dim)

  def call(self, inputs):
    pixels = tf.reshape(inputs, [inputs.shape[0], -1, inputs.shape[-1]])
    return self.attend(pixels, pixels)


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
  print(f"{name} {shape}: {error:.3f}, MultiHeadAttention {limit:.3f}")
  assert error <= 2 * limit


@pytest.mark.parametrize("constant", [-1e9, -40.0])
def test_constant_masks_lose_more(keras_error, constant, monkeypatch):
  shape, _ = keras_error

  def attention_error():
    keras.utils.set_random_seed(1)
    return relative_error(LAYERS["k 3"](shape[-1]), shape)

  bounded = attention_error()

  def add_constant(logits, mask, attended):
    del attended
    return tf.where(mask, logits, logits + constant)

  monkeypatch.setattr(export_attention, "mask_logits", add_constant)
  error = attention_error()
  print(f"constant {constant:g} {shape}: {error:.3f}, bounded {bounded:.3f}")
  assert bounded < error
