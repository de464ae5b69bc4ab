"""Attention rollout, compared with products of dense matrices."""

import keras
import numpy as np
import pytest

import sasa_tf.keras
from sasa_tf.analysis import attention_rollout
from sasa_tf.errors import UserError

HEIGHT, WIDTH = 8, 12


@pytest.fixture(scope="module")
def model():
  """A layer with stride 2, and one without, whose resolution is a quarter of the image's."""
  attention = sasa_tf.keras.LocalSelfAttention2D
  image = keras.Input((HEIGHT, WIDTH, 3))
  x = keras.layers.AveragePooling2D(2)(image)
  x = attention(8, 3, num_heads=2, strides=2, border="mask", name="first")(x)
  x = attention(8, 3, num_heads=2, border="mask", name="second")(x)
  return keras.Model(image, x)


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).normal(size=(2, HEIGHT, WIDTH, 3)).astype(np.float32)


def dense_attention(layer, inputs):
  """Returns the matrix [H * W, H * W] of a layer with windows of 3 x 3, averaged over heads."""
  weights = layer.attention_weights(inputs).numpy()[0].mean(axis=2)
  height, width = weights.shape[:2]
  matrix = np.zeros((height, width, height, width))
  for i, j, a, b in np.ndindex(height, width, 3, 3):
    row, column = i + a - 1, j + b - 1
    if 0 <= row < height and 0 <= column < width:
      matrix[i, j, row, column] += weights[i, j, a, b]
  return matrix.reshape(height * width, height * width)


def spreading(coarse, factor):
  """Returns the matrix that spreads each coarse pixel over factor x factor pixels."""
  fine = tuple(factor * size for size in coarse)
  matrix = np.zeros((*coarse, *fine))
  for row, column in np.ndindex(fine):
    matrix[row // factor, column // factor, row, column] = factor**-2
  return matrix.reshape(np.prod(coarse), np.prod(fine))


def test_rollout_is_the_product_of_the_matrices(model, images):
  rollout = attention_rollout(model, images, shortcut=0.25)
  assert rollout.layer == "second" and len(rollout.pixels) == 6
  for image, shares in zip(images, rollout.shares, strict=True):
    pooled = model.layers[1](image[None])
    first, second = model.get_layer("first"), model.get_layer("second")
    matrices = [
      0.25 * np.eye(6) + 0.75 * dense_attention(second, first(pooled)),
      spreading((2, 3), 2),
      0.25 * np.eye(24) + 0.75 * dense_attention(first, pooled),
      spreading((4, 6), 2),
    ]
    expected = np.linalg.multi_dot(matrices).reshape(6, HEIGHT, WIDTH)
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), 1, atol=1e-5)


def test_shortcut_alone_keeps_a_pixel_where_it_is(model, images):
  rollout = attention_rollout(model, images, [(1, 2)], layer="first", shortcut=1.0)
  expected = np.zeros((HEIGHT, WIDTH))
  expected[4:8, 8:12] = 1 / 16
  np.testing.assert_allclose(rollout.shares[0, 0], expected, atol=1e-7)


def test_shares_that_move_to_the_padding_are_lost(images):
  image = keras.Input((HEIGHT, WIDTH, 3))
  layer = sasa_tf.keras.LocalSelfAttention2D(8, 3, num_heads=2, name="attention")
  model = keras.Model(image, layer(image))
  shares = attention_rollout(model, images[:1], [(0, 0), (4, 4)]).shares[0]
  weights = layer.attention_weights(images[:1], pixels=[(0, 0)]).numpy()[0, 0].mean(axis=0)
  lost = 0.5 * (weights[0].sum() + weights[1:, 0].sum())
  np.testing.assert_allclose(shares.sum(axis=(1, 2)), [1 - lost, 1], atol=1e-6)


def test_a_stem_moves_shares_within_its_blocks(images):
  image = keras.Input((HEIGHT, WIDTH, 3))
  stem = sasa_tf.keras.AttentionStem(8, num_heads=2, name="stem")
  model = keras.Model(image, stem(image))
  shares = attention_rollout(model, images[:1], [(2, 5)]).shares[0, 0]
  block = stem.attention_weights(images[:1]).numpy()[0, 2, 5].mean(axis=0)
  np.testing.assert_allclose(shares[0:4, 4:8], block, atol=1e-6)
  np.testing.assert_allclose(shares.sum(), 1, atol=1e-5)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"layer": "third"}, "no attention layer 'third'; it has first, second"),
    ({"pixels": [(2, 0)]}, r"inside of the output of second, which has 2 x 3 pixels"),
    ({"shortcut": 2}, "from 0 to 1"),
  ],
)
def test_wrong_arguments_are_explained(model, images, arguments, message):
  with pytest.raises(UserError, match=message):
    attention_rollout(model, images, **arguments)


def test_layers_that_become_finer_are_explained(images):
  attention = sasa_tf.keras.LocalSelfAttention2D
  image = keras.Input((HEIGHT, WIDTH, 3))
  x = attention(8, 3, num_heads=2, strides=2)(image)
  x = attention(8, 3, num_heads=2)(keras.layers.UpSampling2D(2)(attention(8, 3, num_heads=2)(x)))
  with pytest.raises(UserError, match="from fine to coarse"):
    attention_rollout(keras.Model(image, x), images)
