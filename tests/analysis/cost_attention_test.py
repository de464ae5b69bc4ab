"""Closed forms of attention compared to counting in loops and to the layers' weights."""

import itertools
from collections import Counter

import keras
import pytest
import tf_keras

import sasa_tf.keras
import sasa_tf.tf_keras
from sasa_tf import ops
from sasa_tf.analysis import cost_model

BINDINGS = {"keras": (keras, sasa_tf.keras), "tf_keras": (tf_keras, sasa_tf.tf_keras)}
both = pytest.mark.parametrize("keras_api", BINDINGS)

HEIGHT, WIDTH, CHANNELS, FILTERS, HEADS = 6, 5, 3, 8, 2
HEAD_DIM = FILTERS // HEADS


def layer_cost(keras_api, kind, shape=(HEIGHT, WIDTH, CHANNELS), **arguments):
  module, binding = BINDINGS[keras_api]
  inputs = module.Input(shape)
  model = module.Model(inputs, getattr(binding, kind)(**arguments)(inputs))
  cost = cost_model(model, shape)
  assert not cost.unknown
  trainable = sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
  fixed = sum(int(keras.ops.size(weight)) for weight in model.non_trainable_weights)
  assert (cost.parameters, cost.non_trainable_parameters) == (trainable, fixed)
  return cost.layers[-1]


def pixels():
  return itertools.product(range(HEIGHT), range(WIDTH))


def products(counts, outputs, inputs):
  """Counts a matrix-vector product in loops."""
  for _ in range(outputs):
    for _ in range(inputs):
      counts["multiply_add"] += 1


def test_equation_3_in_loops():
  counts = Counter()
  for _ in pixels():
    for _ in ("query", "key", "value"):
      products(counts, FILTERS, CHANNELS)
    for _ in range(HEADS):
      for _ in itertools.product(range(3), range(7)):  # the window
        for _ in range(HEAD_DIM):
          counts["multiply_add"] += 1  # q.k
          counts["key_position"] += 1  # q.r
        counts["key_position_sum"] += 1
        counts["softmax"] += 1
        for _ in range(HEAD_DIM):
          counts["multiply_add"] += 1  # a.v
  layer = layer_cost(
    "keras", "LocalSelfAttention2D", filters=FILTERS, num_heads=HEADS, kernel_size=(3, 7)
  )
  assert layer.op_counts == counts
  assert layer.parameters == 3 * CHANNELS * FILTERS + (3 + 7) * HEAD_DIM // 2


@both
@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ({"positions": "none"}, {}),
    ({"positions": "absolute"}, {"elementwise": 30 * 3}),
    ({"use_bias": True, "positions": "none"}, {"elementwise": 30 * 3 * 8}),
    ({"scale": 0.5, "positions": "none"}, {"elementwise": 30 * 8}),
    ({"strides": 2, "positions": "none"}, {"pool": 30 * 8}),
    ({"activation": "relu", "positions": "none"}, {"activate": 30 * 8}),
  ],
)
def test_options_add_their_operations(keras_api, arguments, expected):
  layer = layer_cost(
    keras_api, "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=3, **arguments
  )
  assert layer.op_counts == {
    "multiply_add": 30 * 8 * (3 * 3 + 2 * 9),
    "softmax": 30 * 9 * 2,
    **expected,
  }


@both
def test_locality_adds_the_query_bias(keras_api):
  plain, local = (
    layer_cost(
      keras_api, "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=3, **arguments
    )
    for arguments in ({}, {"locality_strength": 1.0})
  )
  assert local.parameters == plain.parameters + 8
  assert local.op_counts == {**plain.op_counts, "elementwise": 30 * 8}


def test_softmax_activation_is_counted_by_element():
  arguments = {"filters": 8, "num_heads": 2, "kernel_size": 3, "positions": "none"}
  plain, with_softmax = (
    layer_cost("keras", "LocalSelfAttention2D", activation=name, **arguments).op_counts["softmax"]
    for name in (None, "softmax")
  )
  assert with_softmax == plain + 30 * 8


@both
def test_positions_without_content(keras_api):
  layer = layer_cost(
    keras_api, "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=(3, 7), content=False
  )
  assert layer.op_counts == {
    "multiply_add": 30 * 8 * (2 * 3 + 21),
    "position_only": 30 * 21 * 8,
    "axis_position": 30 * 2 * (3 * 2 + 7 * 2),  # rows and columns, each with half of the head width
    "axis_position_sum": 30 * 21 * 2,
    "softmax": 30 * 21 * 2,
  }


@both
def test_cost_does_not_depend_on_the_implementation(keras_api):
  costs = [
    layer_cost(
      keras_api,
      "LocalSelfAttention2D",
      filters=8,
      num_heads=2,
      kernel_size=5,
      implementation=name,
      name="attention",
    )
    for name in ("auto", "reference", "blocked")
  ]
  assert all(cost == costs[0] for cost in costs)


def test_cost_does_not_depend_on_use_implementation():
  cost = None
  for name in ("reference", "blocked"):
    with ops.use_implementation(name):
      found = layer_cost("keras", "LocalSelfAttention2D", filters=8, num_heads=2, name="attention")
    assert cost in (None, found)
    cost = found


def test_window_larger_than_the_image_is_counted_in_full():
  small = layer_cost("keras", "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=11)
  assert small.op_counts["softmax"] == 30 * 121 * 2


def test_cost_does_not_depend_on_dilation_and_border():
  arguments = {"filters": 8, "num_heads": 2, "kernel_size": 3, "name": "attention"}
  plain = layer_cost("keras", "LocalSelfAttention2D", **arguments)
  assert plain == layer_cost(
    "keras", "LocalSelfAttention2D", dilation_rate=2, border="mask", **arguments
  )


def test_stem_in_loops():
  counts = Counter()
  for _ in pixels():
    for _ in ("query", "key"):
      products(counts, FILTERS, CHANNELS)
    for _ in range(5):  # mixtures
      products(counts, FILTERS, CHANNELS)
      for _ in range(FILTERS):
        counts["multiply_add"] += 1  # mixture weight
    for _ in range(HEADS):
      for _ in itertools.product(range(4), range(4)):  # the block
        for _ in range(HEAD_DIM):
          counts["multiply_add"] += 2  # q.k and a.v
        counts["softmax"] += 1
    counts["stem_element"] += FILTERS
  layer = layer_cost("keras", "AttentionStem", filters=FILTERS, num_heads=HEADS, num_mixtures=5)
  assert layer.op_counts == counts


@both
@pytest.mark.parametrize(
  ("variant", "expected"),
  [
    ("mixture", {"multiply_add": 30 * 8 * (2 * 3 + 8 * (3 + 1) + 2 * 16)}),
    (
      "standalone",
      {
        "multiply_add": 30 * 8 * (3 * 3 + 2 * 16),
        "key_position": 30 * 16 * 8,
        "key_position_sum": 30 * 16 * 2,
      },
    ),
    ("conv_values", {"multiply_add": 30 * 8 * (2 * 3 + 16 * 3 + 2 * 16)}),
  ],
)
def test_stem_variants(keras_api, variant, expected):
  layer = layer_cost(keras_api, "AttentionStem", filters=8, num_heads=2, variant=variant)
  assert layer.op_counts == {**expected, "softmax": 30 * 16 * 2, "stem_element": 30 * 8}


@both
def test_squeeze_and_excitation(keras_api):
  layer = layer_cost(keras_api, "SqueezeExcitation2D", shape=(6, 5, 32), ratio=8)
  assert layer.op_counts == {
    "multiply_add": 2 * 32 * 4,
    "elementwise": 4 + 32 + 30 * 32,
    "activate": 36,
    "pool": 30 * 32,
  }


@both
@pytest.mark.parametrize(("subsample", "keys"), [(True, 3 * 3), (False, 6 * 5)])
def test_non_local(keras_api, subsample, keys):
  layer = layer_cost(
    keras_api, "NonLocal2D", shape=(6, 5, 8), inner_filters=4, subsample=subsample, scale=1.0
  )
  pool = {"pool": 2 * 4 * keys * 4} if subsample else {}
  assert layer.op_counts == {
    "multiply_add": 4 * 30 * 8 * 4 + 2 * 30 * keys * 4,
    "softmax": 30 * keys,
    "normalize": 240,
    "elementwise": 240,
    **pool,
  }


@both
def test_attention_augmentation(keras_api):
  layer = layer_cost(
    keras_api,
    "AttentionAugmentedConv2D",
    filters=8,
    key_filters=6,
    value_filters=4,
    num_heads=2,
    strides=2,
  )
  convolution, projections = 9 * 3 * 4, 3 * (2 * 6 + 4) + 4 * 4
  assert layer.output_shape == (3, 3, 8)
  assert layer.op_counts == {
    "multiply_add": 9 * (convolution + projections) + 81 * (6 + 4) + 9 * (3 + 3) * 6,
    "softmax": 81 * 2,
    "elementwise": 9 * 6 + 2 * 81 * 2,
    "pool": 9 * 9 * 3,
  }
