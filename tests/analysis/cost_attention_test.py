"""Closed forms of attention against counting in loops, and against the layers' weights."""

import itertools
from collections import Counter

import keras
import pytest
import tf_keras

import sasa_tf.keras
import sasa_tf.tf_keras
from sasa_tf import ops
from sasa_tf.analysis import cost_model

FACES = {"keras": (keras, sasa_tf.keras), "tf_keras": (tf_keras, sasa_tf.tf_keras)}
both = pytest.mark.parametrize("flavour", FACES)

HEIGHT, WIDTH, CHANNELS, FILTERS, HEADS = 6, 5, 3, 8, 2
HEAD_DIM = FILTERS // HEADS


def layer_cost(flavour, kind, shape=(HEIGHT, WIDTH, CHANNELS), **arguments):
  module, face = FACES[flavour]
  inputs = module.Input(shape)
  model = module.Model(inputs, getattr(face, kind)(**arguments)(inputs))
  cost = cost_model(model, shape)
  assert not cost.unknown
  trainable = sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
  fixed = sum(int(keras.ops.size(weight)) for weight in model.non_trainable_weights)
  assert (cost.parameters, cost.statistics) == (trainable, fixed)
  return cost.layers[-1]


def pixels():
  return itertools.product(range(HEIGHT), range(WIDTH))


def products(work, outputs, inputs):
  """Counts a matrix product of one vector, step by step."""
  for _ in range(outputs):
    for _ in range(inputs):
      work["multiply_add"] += 1


def test_equation_3_in_loops():
  work = Counter()
  for _ in pixels():
    for _ in ("query", "key", "value"):
      products(work, FILTERS, CHANNELS)
    for _ in range(HEADS):
      for _ in itertools.product(range(3), range(7)):  # the window
        for _ in range(HEAD_DIM):
          work["multiply_add"] += 1  # q.k
          work["key_position"] += 1  # q.r
        work["key_position_sum"] += 1
        work["softmax"] += 1
        for _ in range(HEAD_DIM):
          work["multiply_add"] += 1  # a.v
  layer = layer_cost(
    "keras", "LocalSelfAttention2D", filters=FILTERS, num_heads=HEADS, kernel_size=(3, 7)
  )
  assert layer.work == work
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
def test_switches_add_their_work(flavour, arguments, expected):
  layer = layer_cost(
    flavour, "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=3, **arguments
  )
  assert layer.work == {
    "multiply_add": 30 * 8 * (3 * 3 + 2 * 9),
    "softmax": 30 * 9 * 2,
    **expected,
  }


def test_a_softmax_behind_the_attention_is_no_softmax_of_its_windows():
  arguments = {"filters": 8, "num_heads": 2, "kernel_size": 3, "positions": "none"}
  plain, behind = (
    layer_cost("keras", "LocalSelfAttention2D", activation=name, **arguments).work["softmax"]
    for name in (None, "softmax")
  )
  assert behind == plain + 30 * 8


@both
def test_without_content_the_conventions_count_positions_their_way(flavour):
  layer = layer_cost(
    flavour, "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=(3, 7), content=False
  )
  assert layer.work == {
    "multiply_add": 30 * 8 * (2 * 3 + 21),
    "lone_position": 30 * 21 * 8,
    "axis_position": 30 * 2 * (3 * 2 + 7 * 2),  # a head's rows and columns, half its width each
    "axis_position_sum": 30 * 21 * 2,
    "softmax": 30 * 21 * 2,
  }


@both
def test_the_implementation_does_not_matter(flavour):
  costs = [
    layer_cost(
      flavour,
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


def test_nor_does_the_implementation_of_the_context():
  cost = None
  for name in ("reference", "blocked"):
    with ops.use_implementation(name):
      found = layer_cost("keras", "LocalSelfAttention2D", filters=8, num_heads=2, name="attention")
    assert cost in (None, found)
    cost = found


def test_a_window_larger_than_the_map_counts_whole():
  small = layer_cost("keras", "LocalSelfAttention2D", filters=8, num_heads=2, kernel_size=11)
  assert small.work["softmax"] == 30 * 121 * 2


def test_dilation_and_border_change_nothing():
  arguments = {"filters": 8, "num_heads": 2, "kernel_size": 3, "name": "attention"}
  plain = layer_cost("keras", "LocalSelfAttention2D", **arguments)
  assert plain == layer_cost(
    "keras", "LocalSelfAttention2D", dilation_rate=2, border="mask", **arguments
  )


def test_the_stem_in_loops():
  work = Counter()
  for _ in pixels():
    for _ in ("query", "key"):
      products(work, FILTERS, CHANNELS)
    for _ in range(5):  # mixtures
      products(work, FILTERS, CHANNELS)
      for _ in range(FILTERS):
        work["multiply_add"] += 1  # its weight
    for _ in range(HEADS):
      for _ in itertools.product(range(4), range(4)):  # the block
        for _ in range(HEAD_DIM):
          work["multiply_add"] += 2  # q.k and a.v
        work["softmax"] += 1
    work["stem_element"] += FILTERS
  layer = layer_cost("keras", "AttentionStem", filters=FILTERS, num_heads=HEADS, num_mixtures=5)
  assert layer.work == work


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
def test_variants_of_the_stem(flavour, variant, expected):
  layer = layer_cost(flavour, "AttentionStem", filters=8, num_heads=2, variant=variant)
  assert layer.work == {**expected, "softmax": 30 * 16 * 2, "stem_element": 30 * 8}


@both
def test_squeeze_and_excitation(flavour):
  layer = layer_cost(flavour, "SqueezeExcitation2D", shape=(6, 5, 32), ratio=8)
  assert layer.work == {
    "multiply_add": 2 * 32 * 4,
    "elementwise": 4 + 32 + 30 * 32,
    "activate": 36,
    "pool": 30 * 32,
  }


@both
@pytest.mark.parametrize(("subsample", "keys"), [(True, 3 * 3), (False, 6 * 5)])
def test_non_local(flavour, subsample, keys):
  layer = layer_cost(
    flavour, "NonLocal2D", shape=(6, 5, 8), inner_filters=4, subsample=subsample, scale=1.0
  )
  pool = {"pool": 2 * 4 * keys * 4} if subsample else {}
  assert layer.work == {
    "multiply_add": 4 * 30 * 8 * 4 + 2 * 30 * keys * 4,
    "softmax": 30 * keys,
    "normalize": 240,
    "elementwise": 240,
    **pool,
  }


@both
def test_attention_augmentation(flavour):
  layer = layer_cost(
    flavour,
    "AttentionAugmentedConv2D",
    filters=8,
    key_filters=6,
    value_filters=4,
    num_heads=2,
    strides=2,
  )
  convolution, projections = 9 * 3 * 4, 3 * (2 * 6 + 4) + 4 * 4
  assert layer.output_shape == (3, 3, 8)
  assert layer.work == {
    "multiply_add": 9 * (convolution + projections) + 81 * (6 + 4) + 9 * (3 + 3) * 6,
    "softmax": 81 * 2,
    "elementwise": 9 * 6 + 2 * 81 * 2,
    "pool": 9 * 9 * 3,
  }
