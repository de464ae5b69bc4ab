"""Models of one layer that other runtimes must be able to run, for tests of conversions."""

import numpy as np

from tests.layers.bindings import BINDINGS

# Name -> (class, constructor arguments, shape of an image).
LAYERS = {
  "relative": ("LocalSelfAttention2D", {"filters": 8, "kernel_size": 3, "num_heads": 2}, (12, 9)),
  "one block": ("LocalSelfAttention2D", {"filters": 8, "num_heads": 2}, (5, 6)),
  "masked": (
    "LocalSelfAttention2D",
    {
      "filters": 8,
      "kernel_size": 3,
      "num_heads": 2,
      "border": "mask",
      "strides": 2,
      "dilation_rate": 2,
      "use_bias": True,
    },
    (13, 11),
  ),
  "one pixel": ("LocalSelfAttention2D", {"filters": 8, "kernel_size": 1, "num_heads": 2}, (4, 5)),
  "absolute": (
    "LocalSelfAttention2D",
    {"filters": 8, "kernel_size": 3, "num_heads": 2, "positions": "absolute"},
    (17, 16),
  ),
  "any size": (
    "LocalSelfAttention2D",
    {"filters": 8, "kernel_size": 3, "num_heads": 2},
    (None, None),
  ),
  "stem": ("AttentionStem", {"filters": 8, "num_heads": 2}, (9, 8)),
  "stem of any size": ("AttentionStem", {"filters": 8, "num_heads": 2}, (None, None)),
  "stand-alone stem": (
    "AttentionStem",
    {"filters": 8, "num_heads": 2, "variant": "standalone"},
    (8, 8),
  ),
  "augmented": (
    "AttentionAugmentedConv2D",
    {"filters": 8, "key_filters": 8, "value_filters": 4, "num_heads": 2, "strides": 2},
    (6, 7),
  ),
  "absolute augmented": (
    "AttentionAugmentedConv2D",
    {
      "filters": 8,
      "key_filters": 8,
      "value_filters": 4,
      "num_heads": 2,
      "positions": "absolute",
    },
    (6, 7),
  ),
  "non-local": ("NonLocal2D", {"gamma_initializer": "ones"}, (6, 7)),
  "squeeze-excitation": ("SqueezeExcitation2D", {"ratio": 2}, (6, 7)),
}


def convertible_model(keras_api, name):
  """Returns the model of a name of `LAYERS`."""
  keras, binding = BINDINGS[keras_api]
  layer, arguments, size = LAYERS[name]
  keras.utils.set_random_seed(0)
  inputs = keras.Input([*size, 4])
  return keras.Model(inputs, getattr(binding, layer)(**arguments)(inputs))


def random_images(model, batch):
  """Returns images for a model; an unknown size is 11."""
  size = [11 if n is None else n for n in model.input_shape[1:]]
  return np.random.default_rng(0).normal(size=(batch, *size)).astype("float32")
