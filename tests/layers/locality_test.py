"""Heads that start at their offset of the window, like the taps of a convolution."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.layers.locality import head_offsets
from tests.layers.bindings import BINDINGS, both_bindings


def build(keras_api, filters=36, **arguments):
  _, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(
    filters, **{"kernel_size": 3, "num_heads": 9, "locality_strength": 1.0, **arguments}
  )
  layer.build((1, 9, 9, 5))
  return layer


def images():
  return np.random.default_rng(0).normal(size=(1, 9, 9, 5)).astype("float32")


def test_offsets_start_at_the_center_and_repeat():
  assert head_offsets(9, (3, 3)) == [
    (0, 0),
    *[(-1, 0), (0, -1), (0, 1), (1, 0)],
    *[(-1, -1), (-1, 1), (1, -1), (1, 1)],
  ]
  assert head_offsets(12, (3, 3))[9:] == head_offsets(3, (3, 3))
  assert head_offsets(4, (1, 3)) == [(0, 0), (0, -1), (0, 1), (0, 0)]


@both_bindings
@pytest.mark.parametrize("strength", [0.5, 3.0])
@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 3), (1, 7)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_initial_weights_fall_with_the_distance_from_the_offset(
  keras_api, strength, kernel_size, scale
):
  layer = build(
    keras_api,
    kernel_size=kernel_size,
    locality_strength=strength,
    scale=scale,
  )
  layer.query_kernel.assign(np.zeros([5, 36]))
  weights = np.array(layer.attention_weights(images(), [(4, 4)]))[0, 0]
  rows, columns = (np.arange(size) - size // 2 for size in kernel_size)
  for (row, column), found in zip(head_offsets(9, kernel_size), weights, strict=True):
    distances = (rows[:, None] - row) ** 2 + (columns[None] - column) ** 2
    expected = np.exp(-strength * distances)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-5)


@both_bindings
def test_strong_heads_are_the_taps_of_a_convolution(keras_api):
  layer = build(keras_api, locality_strength=300.0)
  x = images()
  value = x[0] @ np.array(layer.value_kernel)
  outputs = np.array(layer(x))[0]
  for head, (row, column) in enumerate(head_offsets(9, (3, 3))):
    part = slice(4 * head, 4 * head + 4)
    shifted = value[1 + row : 8 + row, 1 + column : 8 + column, part]
    np.testing.assert_allclose(outputs[1:8, 1:8, part], shifted, atol=1e-4)


@both_bindings
@pytest.mark.parametrize("use_bias", [False, True])
def test_adds_only_a_query_bias(keras_api, use_bias):
  layer = build(keras_api, use_bias=use_bias)
  assert layer.query_bias.shape == (36,)
  assert (layer.key_bias is not None) == (layer.value_bias is not None) == use_bias
  plain = build(keras_api, use_bias=use_bias, locality_strength=0.0)
  assert (plain.query_bias is not None) == use_bias
  assert not use_bias or not np.array(plain.query_bias).any()


@both_bindings
def test_keys_of_the_remaining_features_are_random(keras_api):
  kernel = np.array(build(keras_api, filters=72).key_kernel).reshape(5, 9, 2, 4)
  assert not kernel[..., :2].any()
  assert (kernel[..., 2:] != 0).all()


@both_bindings
def test_remaining_features_are_drawn_by_the_initializer(keras_api):
  tables = [
    np.array(build(keras_api, filters=72, relative_initializer="ones").relative_rows),
    np.array(build(keras_api, filters=72, relative_initializer="ones").relative_columns),
  ]
  for table in tables:
    np.testing.assert_array_equal(table[:, 2:], 1.0)
    np.testing.assert_allclose(table[:, 1], [-(8**-0.5), 0, 8**-0.5], rtol=1e-6)


@both_bindings
@pytest.mark.parametrize("content", [False, True])
def test_implementations_agree_and_the_bias_has_a_gradient(keras_api, content):
  outputs = {}
  weights = build(keras_api, content=content).get_weights()
  for implementation in ("reference", "blocked"):
    layer = build(keras_api, implementation=implementation, content=content)
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
      result = layer(tf.constant(images()))
      loss = tf.reduce_sum(result**2)
    bias = layer.query_bias
    gradient = tape.gradient(loss, bias if isinstance(bias, tf.Variable) else bias.value)
    assert np.abs(gradient).max() > 1e-3
    outputs[implementation] = np.array(result), np.array(gradient)
  for found, expected in zip(outputs["blocked"], outputs["reference"], strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@both_bindings
def test_is_serialized(keras_api):
  layer = build(keras_api, locality_strength=2.0)
  copy = type(layer).from_config(layer.get_config())
  assert copy.locality_strength == 2.0


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"locality_strength": -1}, "locality_strength must be 0 or a positive number; received -1"),
    ({"positions": "none"}, "needs positions='relative' .*received positions='none'"),
    ({"filters": 18}, "at least 4 channels.*filters=18 / num_heads=9 = 2. Use fewer heads"),
  ],
)
def test_bad_arguments(keras_api, arguments, message):
  with pytest.raises(ValueError, match=message):
    build(keras_api, **arguments)
