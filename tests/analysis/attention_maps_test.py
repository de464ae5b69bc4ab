"""Attention maps: windows of chosen pixels, their statistics, positions, and wrong arguments."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sasa_tf.keras
import sasa_tf.tf_keras
from sasa_tf.analysis import attention_maps
from sasa_tf.analysis.attention import MapGeometry, WindowStatistics
from sasa_tf.errors import UserError

BINDINGS = {"keras": (keras, sasa_tf.keras), "tf_keras": (tf_keras, sasa_tf.tf_keras)}
SIZE = (23, 17)


def images_of(size=SIZE, batch=2, channels=3):
  return np.random.default_rng(0).normal(size=(batch, *size, channels)).astype(np.float32)


def functional_model(binding, **arguments):
  """A model with one attention layer of stride 2, in a nested model that is used twice."""
  own, layers = BINDINGS[binding]
  attention = layers.LocalSelfAttention2D(
    8, num_heads=2, strides=2, name="attention", **({"kernel_size": 5} | arguments)
  )
  inner_input = own.Input((None, None, 3))
  inner = own.Model(inner_input, own.layers.ReLU()(attention(inner_input)), name="inner")
  image = own.Input((*SIZE, 3))
  projected = own.layers.Conv2D(3, 1, name="projection")(inner(image))
  return own.Model(image, inner(projected)), attention


@pytest.mark.parametrize("binding", BINDINGS)
def test_windows_are_those_of_the_full_tensor(binding):
  model, attention = functional_model(binding)
  images = images_of()
  pixels = [(0, 0), (22, 16), (9, 4)]
  maps = attention_maps(model, images, pixels=pixels)
  assert list(maps) == ["attention", "attention:2"]

  full = attention.attention_weights(images).numpy()
  expected = np.stack([full[:, row, column] for row, column in pixels], axis=1)
  np.testing.assert_allclose(maps["attention"].weights, expected, atol=1e-6)

  hidden = model.get_layer("projection")(model.get_layer("inner")(images))
  full = attention.attention_weights(hidden).numpy()
  second = maps["attention:2"]
  assert second.geometry.stride == (2, 2) and second.geometry.size == (12, 9)
  assert second.pixels.tolist() == [[0, 0], [11, 8], [4, 2]]
  expected = np.stack([full[:, row, column] for row, column in second.pixels], axis=1)
  np.testing.assert_allclose(second.weights, expected, atol=1e-6)


@pytest.mark.parametrize("binding", BINDINGS)
def test_layers_of_a_classifier_are_selected_by_pattern(binding):
  _, layers = BINDINGS[binding]
  model = layers.SASAResNetClassifier(
    26, 10, (*SIZE, 3), stem="attention", width_multiplier=0.0625, num_heads=2, kernel_size=3
  )
  maps = attention_maps(model, images_of(batch=1), layers=["stem", "group[34]_*"])
  strides = {name: layer.geometry.stride[0] for name, layer in maps.items()}
  assert strides == {
    "stem": 1,
    "group3_block1_spatial": 8,
    "group3_block2_spatial": 16,
    "group3_block3_spatial": 16,
    "group3_block4_spatial": 16,
    "group4_block1_spatial": 16,
  }
  for layer in maps.values():
    np.testing.assert_allclose(layer.weights.sum((-1, -2)), 1, atol=1e-5)
    assert max(len(np.unique(axis)) for axis in layer.pixels.T) <= 16


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 6), (3, 2)])
def test_blocks_of_the_stem_lie_where_its_weights_are(size):
  inputs = keras.Input((*size, 3))
  stem = sasa_tf.keras.AttentionStem(8, num_heads=2, name="stem")
  maps = attention_maps(keras.Model(inputs, stem(inputs)), images_of(size))["stem"]
  positions = maps.geometry.window_pixels(maps.pixels)
  inside = maps.geometry.is_inside(positions)
  # The padding of a block has no weight, and each pixel is in its own block.
  assert np.all((maps.weights.min(axis=(0, 2)) > 0) == inside)
  assert np.all(np.any(np.all(positions == maps.pixels[:, None, None], -1), axis=(1, 2)))
  assert not maps.statistics.padding_share.any()
  assert maps.position_logits is None


def test_statistics_of_known_windows():
  layer = sasa_tf.keras.LocalSelfAttention2D(4, kernel_size=3, num_heads=2, dilation_rate=2)
  geometry = MapGeometry.of(layer, (4, 6), (8, 12))
  pixels = np.array([[0, 0], [2, 3]])
  weights = np.zeros((1, 2, 2, 3, 3), np.float32)
  weights[:, :, 0] = 1 / 9  # uniform
  weights[:, :, 1, 0, 1] = 1  # the position above
  statistics = WindowStatistics.of(weights, pixels, geometry)
  np.testing.assert_allclose(statistics.entropy, [np.log(9), 0], atol=1e-6)
  assert statistics.max_entropy == pytest.approx(np.log(9))
  np.testing.assert_allclose(statistics.distance, [(4 * 2 + 4 * 8**0.5) / 9, 2], rtol=1e-6)
  np.testing.assert_allclose(statistics.image_distance, 2 * statistics.distance, rtol=1e-6)
  # Of the corner's window, 5 of 9 positions are outside, of the other one 3 of 9 and none above.
  np.testing.assert_allclose(statistics.padding_share, [(5 + 3) / 18, 0.5], rtol=1e-6)


@pytest.mark.parametrize("border", ["zero", "mask"])
def test_padding_share_is_the_weight_outside(border):
  model, _ = functional_model("keras", border=border)
  maps = attention_maps(model, images_of(), layers=["attention"], pixels=[(0, 8)])["attention"]
  share = maps.weights[..., :2, :].sum((-1, -2)).mean(axis=(0, 1))
  np.testing.assert_allclose(maps.statistics.padding_share, share, atol=1e-6)
  assert (share > 0.1).all() == (border == "zero")


def test_position_logits_are_the_mean_of_those_of_all_queries():
  model, attention = functional_model("keras", use_bias=True, scale=0.5)
  attention.query_bias.assign(np.random.default_rng(1).normal(size=8))
  images = images_of()
  maps = attention_maps(model, images, layers="attention", pixels=[(0, 0)])["attention"]
  query = tf.tensordot(images, attention.query_kernel.value, 1) + attention.query_bias.value
  query = tf.reshape(query, [-1, 2, 4]).numpy() * 0.5
  rows, columns = (np.array(t) for t in (attention.relative_rows, attention.relative_columns))
  by_row, by_column = query[..., :2] @ rows.T, query[..., 2:] @ columns.T  # [BHW, N, K]
  expected = (by_row[..., :, None] + by_column[..., None, :]).mean(axis=0)
  np.testing.assert_allclose(maps.position_logits, expected, atol=1e-5)
  assert maps.relative_embeddings.shape == (5, 5, 4)
  np.testing.assert_array_equal(maps.relative_embeddings[1, 3], [*rows[1], *columns[3]])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"pixels": [(0, 17)]}, r"inside of the image of 23 x 17 pixels .* received \[\[0, 17\]\]"),
    ({"pixels": [(-1, 0)]}, r"inside of the image"),
    ({"pixels": [0.5, 1]}, r"integers of shape \[P, 2\]"),
    ({"images": images_of(channels=1)}, r"shape \[None, 23, 17, 3\].*\[2, 23, 17, 1\]"),
    ({"images": images_of((8, 8))}, r"received \[2, 8, 8, 3\]"),
    ({"layers": ["atention"]}, "no attention layer 'atention'. Did you mean 'attention'"),
  ],
)
def test_wrong_arguments_are_explained(arguments, message):
  model, _ = functional_model("keras")
  with pytest.raises(UserError, match=message):
    attention_maps(**({"model": model, "images": images_of()} | arguments))


def test_model_without_attention_is_explained():
  inputs = keras.Input((8, 8, 3))
  model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs), name="plain")
  with pytest.raises(UserError, match="'plain' has no attention layer"):
    attention_maps(model, images_of((8, 8)))


def test_subclassed_model_is_explained():
  class Subclassed(keras.Model):
    pass

  with pytest.raises(UserError, match=r"functional .* received Subclassed"):
    attention_maps(Subclassed(), images_of((8, 8)))
