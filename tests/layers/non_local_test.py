"""NonLocal2D: values, initial identity, errors."""

import numpy as np
import pytest

from tests.layers.bindings import BINDINGS, both_bindings


def images(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def pooled(x):
  """2x2 max pooling of [H, W, C]; windows at the end cover the remaining pixels."""
  rows = np.stack([x[i : i + 2].max(axis=0) for i in range(0, len(x), 2)])
  return np.stack([rows[:, j : j + 2].max(axis=1) for j in range(0, x.shape[1], 2)], axis=1)


def oracle(layer, x, scale, subsample):
  """The block at inference with the initial statistics of batch norm: mean 0, variance 1."""
  query, key, value, output = (
    np.array(kernel, np.float64)
    for kernel in (layer.query_kernel, layer.key_kernel, layer.value_kernel, layer.output_kernel)
  )
  result = np.zeros(x.shape)
  for b, image in enumerate(x):
    keys, values = image @ key, image @ value
    if subsample:
      keys, values = pooled(keys), pooled(values)
    for i, j in np.ndindex(*image.shape[:2]):
      logits = np.einsum("yxd,d->yx", keys, scale * (image[i, j] @ query))
      weights = np.exp(logits - logits.max())
      attended = np.einsum("yx,yxd->d", weights / weights.sum(), values)
      result[b, i, j] = image[i, j] + attended @ output / np.sqrt(1 + 1e-5)
  return result


@both_bindings
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize(("scale", "expected"), [(None, 4**-0.5), (1.0, 1.0)])
def test_matches_oracle(keras_api, subsample, scale, expected):
  _, binding = BINDINGS[keras_api]
  x = images(2, 5, 4, 8)
  layer = binding.NonLocal2D(subsample=subsample, scale=scale, gamma_initializer="ones")
  np.testing.assert_allclose(layer(x), oracle(layer, x, expected, subsample), atol=1e-5)


@both_bindings
@pytest.mark.parametrize("training", [False, True])
def test_initially_the_identity(keras_api, training):
  _, binding = BINDINGS[keras_api]
  x = images(2, 5, 4, 8)
  np.testing.assert_array_equal(binding.NonLocal2D()(x, training=training), x)


@both_bindings
def test_training_updates_the_statistics(keras_api):
  _, binding = BINDINGS[keras_api]
  x = images(2, 5, 4, 8)
  layer = binding.NonLocal2D(norm_momentum=0.5)
  layer(x, training=False)
  assert np.abs(layer.norm.moving_mean).max() == 0
  layer(x, training=True)
  assert np.abs(layer.norm.moving_mean).max() > 0


@both_bindings
@pytest.mark.parametrize(("inner_filters", "inner"), [(None, 32), (7, 7)])
def test_parameters(keras_api, inner_filters, inner):
  _, binding = BINDINGS[keras_api]
  layer = binding.NonLocal2D(inner_filters)
  layer.build((None, None, None, 64))
  assert layer.inner_filters == inner
  assert sum(np.prod(w.shape) for w in layer.trainable_weights) == 4 * 64 * inner + 2 * 64


@both_bindings
def test_one_pixel(keras_api):
  _, binding = BINDINGS[keras_api]
  x = images(3, 1, 1, 8)
  layer = binding.NonLocal2D(gamma_initializer="ones")
  np.testing.assert_allclose(layer(x), oracle(layer, x, 1.0, False), atol=1e-5)


@both_bindings
def test_bad_arguments_and_inputs(keras_api):
  keras, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match="inner_filters must be a positive int, or None"):
    binding.NonLocal2D(0)
  with pytest.raises(ValueError, match="needs to know the channels"):
    binding.NonLocal2D()(keras.Input([8, 8, None]))
  layer = binding.NonLocal2D()
  layer(keras.Input([8, 8, 16]))
  with pytest.raises(ValueError, match=r"axis -1|was built for inputs of shape"):
    layer(keras.Input([8, 8, 32]))
