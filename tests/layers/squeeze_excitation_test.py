"""SqueezeExcitation2D: values, weights, errors."""

import numpy as np
import pytest

from tests.layers.bindings import BINDINGS, both_bindings


def images(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


@both_bindings
def test_matches_the_formula(keras_api):
  _, binding = BINDINGS[keras_api]
  x = images(2, 5, 3, 12)
  layer = binding.SqueezeExcitation2D(ratio=3, bias_initializer="ones")
  result = layer(x)
  expected = np.zeros_like(x)
  for b in range(2):
    mean = x[b].reshape(-1, 12).mean(axis=0)
    squeezed = np.maximum(mean @ np.array(layer.squeeze_kernel) + np.array(layer.squeeze_bias), 0)
    logits = squeezed @ np.array(layer.excitation_kernel) + np.array(layer.excitation_bias)
    expected[b] = x[b] / (1 + np.exp(-logits))
  np.testing.assert_allclose(result, expected, atol=1e-6)


@both_bindings
@pytest.mark.parametrize(("channels", "squeezed"), [(256, 16), (40, 2), (8, 1)])
def test_parameters(keras_api, channels, squeezed):
  _, binding = BINDINGS[keras_api]
  layer = binding.SqueezeExcitation2D()
  layer.build((None, None, None, channels))
  assert layer.count_params() == 2 * channels * squeezed + squeezed + channels


@both_bindings
def test_gating_activation_is_used(keras_api):
  _, binding = BINDINGS[keras_api]
  x = images(1, 4, 4, 8)
  layer = binding.SqueezeExcitation2D(2, gating_activation="linear", kernel_initializer="zeros")
  assert np.abs(layer(x)).max() == 0  # a sigmoid of 0 would give 0.5


@both_bindings
def test_float16_mean_does_not_overflow(keras_api):
  keras, binding = BINDINGS[keras_api]
  x = np.full((1, 64, 64, 8), 100.0, "float16")  # each channel sums to 409,600
  layer = (
    binding.SqueezeExcitation2D(2, dtype=keras.mixed_precision.Policy("mixed_float16"))
    if (keras_api == "tf_keras")
    else binding.SqueezeExcitation2D(2, dtype="mixed_float16")
  )
  assert np.isfinite(np.array(layer(x))).all()


@both_bindings
def test_bad_arguments_and_inputs(keras_api):
  keras, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match="ratio must be a positive int; received 0"):
    binding.SqueezeExcitation2D(0)
  with pytest.raises(ValueError, match="needs to know the channels"):
    binding.SqueezeExcitation2D()(keras.Input([8, 8, None]))
  layer = binding.SqueezeExcitation2D()
  layer(keras.Input([8, 8, 16]))
  with pytest.raises(ValueError, match=r"axis -1|was built for inputs of shape"):
    layer(keras.Input([8, 8, 32]))
