"""Layers that replace Conv2D take its arguments, and reject the values that they cannot have."""

import numpy as np
import pytest

from tests.layers.bindings import BINDINGS, both_bindings

# Name -> (arguments that are needed, arguments of Conv2D, arguments that mean the same).
LAYERS = {
  "LocalSelfAttention2D": (
    {"filters": 8, "num_heads": 2},
    {"kernel_size": (3, 3), "strides": (2, 2), "padding": "same", "dilation_rate": (1, 1)},
    {"kernel_size": 3, "strides": 2},
  ),
  "AttentionAugmentedConv2D": (
    {"filters": 8, "key_filters": 8, "value_filters": 4, "num_heads": 2, "positions": "none"},
    {"kernel_size": (3, 3), "strides": [2, 2], "padding": "SAME"},
    {"kernel_size": 3, "strides": 2},
  ),
  "AttentionStem": (
    {"filters": 8, "num_heads": 2},
    {"block_size": (2, 2), "padding": "same"},
    {"block_size": 2},
  ),
  "NonLocal2D": ({}, {}, {}),
  "SqueezeExcitation2D": ({"ratio": 2}, {}, {}),
}
each = pytest.mark.parametrize("name", LAYERS)


@both_bindings
@each
def test_arguments_of_conv2d_are_accepted(keras_api, name):
  _, binding = BINDINGS[keras_api]
  needed, given, same = LAYERS[name]
  layer = getattr(binding, name)(**needed, **given, data_format="channels_last")
  expected = getattr(binding, name)(**needed, **same)
  configs = [{**x.get_config(), "name": None} for x in (layer, expected)]
  assert configs[0] == configs[1]
  copy = type(layer).from_config(layer.get_config())
  images = np.ones([1, 6, 6, 4], "float32")
  assert copy(images).shape == expected(images).shape == layer(images).shape


@both_bindings
@each
def test_channels_first_is_rejected(keras_api, name):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=r"data_format must be 'channels_last'.*'channels_first'"):
    getattr(binding, name)(**LAYERS[name][0], data_format="channels_first")


@both_bindings
@pytest.mark.parametrize("name", ["LocalSelfAttention2D", "AttentionAugmentedConv2D"])
def test_unequal_strides_are_rejected(keras_api, name):
  _, binding = BINDINGS[keras_api]
  for strides in ((1, 2), (2, 2, 2), 0, 1.5, True, "2"):
    with pytest.raises(ValueError, match="strides must be a positive int, or a pair"):
      getattr(binding, name)(**LAYERS[name][0], strides=strides)


@both_bindings
@pytest.mark.parametrize(
  "name", ["LocalSelfAttention2D", "AttentionAugmentedConv2D", "AttentionStem"]
)
def test_other_paddings_are_rejected(keras_api, name):
  _, binding = BINDINGS[keras_api]
  for padding in ("valid", "causal", 1, None):
    with pytest.raises(ValueError, match="padding must be 'same'"):
      getattr(binding, name)(**LAYERS[name][0], padding=padding)
