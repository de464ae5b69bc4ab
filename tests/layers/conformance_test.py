"""Every public layer and model keeps every promise, in both flavours.

A layer joins by an entry in CASES; a public name without one fails `test_table_is_complete`.
"""

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.bindings import FACES, both, tf_variables

# Of a network on the levels of a pyramid, the finest first.
LEVELS = {"3": 4, "4": 6}
SMALL_ATTENTION = {
  "num_filters": 8,
  "kernel_size": 3,
  "num_heads": 2,
  "implementation": "reference",  # the quickest to trace
}

# Name -> (constructor arguments, channels of the input). Of several inputs, each is half as large
# as the one before; a list of inputs goes from the coarsest to the finest.
CASES = {
  # With relative positions it needs inputs of known size: see attention_augmented_test.
  "AttentionAugmentedConv2D": (
    {
      "filters": 8,
      "key_filters": 6,
      "value_filters": 4,
      "num_heads": 2,
      "positions": "absolute",
      "strides": 2,
    },
    3,
  ),
  "AttentionStem": ({"filters": 8, "num_heads": 2, "num_mixtures": 3}, 3),
  "LocalSelfAttention2D": ({"filters": 8, "kernel_size": 5, "num_heads": 2, "strides": 2}, 3),
  # As the zeros that it starts with would keep all other weights from moving.
  "NonLocal2D": ({"gamma_initializer": "ones"}, 6),
  "RetinaNetHead": (
    {
      "input_specs": {level: (None, None, None, 8) for level in LEVELS},
      "num_classes": 3,
      "num_anchors": 2,
      "num_layers": 1,
      **SMALL_ATTENTION,
    },
    dict.fromkeys(LEVELS, 8),
  ),
  "SASAFPN": (
    {
      "input_specs": {level: (None, None, None, c) for level, c in LEVELS.items()},
      "max_level": 6,
      **SMALL_ATTENTION,
    },
    LEVELS,
  ),
  "SASAResNet": (
    {
      "model_id": 26,
      "width_multiplier": 0.0625,
      "num_heads": 2,
      "stem": "conv_small",
      "attention_groups": (1, 4),
      "zero_init_residual": False,  # so that every weight has a gradient in the first step
    },
    3,
  ),
  "SqueezeExcitation2D": ({"ratio": 2}, 32),
  "UpsampleAdd2D": ({}, [3, 3]),
}
each = pytest.mark.parametrize("name", CASES)


def make(flavour, name):
  _, face = FACES[flavour]
  arguments, _ = CASES[name]
  return getattr(face, name)(**arguments)


def each_input(channels, make_input):
  """Maps (channels, by how much smaller than the first) to inputs, structured as `channels`."""
  if isinstance(channels, dict):
    return {
      level: make_input(c, 2**halvings) for halvings, (level, c) in enumerate(channels.items())
    }
  if isinstance(channels, list):
    return [make_input(c, 2**halvings) for halvings, c in enumerate(channels)][::-1]
  return make_input(channels, 1)


def batch(name, height=10, width=12, count=2):
  rng = np.random.default_rng(0)

  def make_input(channels, smaller):
    size = (count, -(-height // smaller), -(-width // smaller), channels)
    return rng.normal(size=size).astype("float32")

  return each_input(CASES[name][1], make_input)


def flat(outputs):
  return [np.asarray(tf.cast(x, tf.float32)) for x in tf.nest.flatten(outputs)]


def assert_same(left, right, **tolerance):
  for a, b in zip(flat(left), flat(right), strict=True):
    np.testing.assert_allclose(a, b, **tolerance)


def functional(flavour, name):
  """A model of Keras's functional API around the layer; it does not know the images' size."""
  keras, _ = FACES[flavour]
  inputs = each_input(CASES[name][1], lambda channels, _: keras.Input([None, None, channels]))
  outputs = tf.nest.flatten(make(flavour, name)(inputs))
  pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in outputs]
  features = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
  return keras.Model(inputs, keras.layers.Dense(3)(features))


@pytest.fixture(scope="module")
def built():
  """(flavour, name) -> the functional model, made once for all tests that do not train it."""
  return functools.cache(functional)


def test_table_is_complete():
  for _, face in FACES.values():
    assert set(face.__all__) == set(CASES)


@both
@each
def test_config_round_trip(flavour, name):
  layer = make(flavour, name)
  copy = type(layer).from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  x = batch(name)
  layer(x), copy(x)
  copy.set_weights(layer.get_weights())
  assert_same(layer(x), copy(x))


@both
@each
def test_trains_in_the_functional_api(flavour, name):
  keras, _ = FACES[flavour]
  model = functional(flavour, name)
  # Compiled by XLA, as Keras 3 does by itself, the network would take a minute; `jit` is below.
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  # By SGD, as Adam alone would take longer to trace than the network; a large step moves all.
  model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
  before = [np.array(w) for w in model.trainable_weights]
  history = model.fit(batch(name, count=4), np.array([0, 1, 2, 0]), verbose=0)
  assert np.isfinite(history.history["loss"][0])
  after = map(np.array, model.trainable_weights)
  moved = [(b != a).any() for b, a in zip(before, after, strict=True)]
  assert np.mean(moved) > 0.9  # ReLU may keep a weight from moving in one step


@both
@each
def test_unknown_size_serves_every_size(built, flavour, name):
  model = built(flavour, name)
  assert model(batch(name, 10, 12)).shape == model(batch(name, 7, 5)).shape == (2, 3)


@both
@each
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_saves_and_loads(built, flavour, name, suffix, tmp_path):
  keras, _ = FACES[flavour]
  model, path, x = built(flavour, name), str(tmp_path / f"model{suffix}"), batch(name)
  if suffix == ".keras":
    model.save(path)
    loaded = keras.models.load_model(path)
  else:
    model.save_weights(path)
    loaded = functional(flavour, name)
    loaded.load_weights(path)
  assert_same(model(x), loaded(x), atol=1e-6)


@both
@each
def test_checkpoint(built, flavour, name, tmp_path):
  model, copy, x = built(flavour, name), functional(flavour, name), batch(name)
  path = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
  tf.train.Checkpoint(model=copy).restore(path).assert_existing_objects_matched()
  assert_same(model(x), copy(x), atol=1e-6)


@both
@each
def test_saved_model(built, flavour, name, tmp_path):
  model, x = built(flavour, name), batch(name)
  model.export(str(tmp_path))
  served = tf.saved_model.load(str(tmp_path))
  # Of a dictionary of inputs tf_keras exports a list.
  inputs = tf.nest.flatten(x) if flavour == "tf_keras" and isinstance(x, dict) else x
  assert_same(model(x), served.serve(inputs), atol=1e-5)


@both
@each
@pytest.mark.parametrize("jit_compile", [False, True])
def test_function_equals_eager(flavour, name, jit_compile):
  layer, x = make(flavour, name), batch(name)
  eager = layer(x)
  compiled = tf.function(lambda inputs: layer(inputs), jit_compile=jit_compile)(x)
  assert_same(eager, compiled, atol=2e-4, rtol=2e-4)


@both
@each
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(flavour, name, dtype):
  keras, _ = FACES[flavour]
  module = keras.mixed_precision
  x = batch(name)
  full = make(flavour, name)
  expected = full(x)
  before = module.global_policy() if flavour == "tf_keras" else module.dtype_policy()
  module.set_global_policy(f"mixed_{dtype}")
  try:
    mixed = make(flavour, name)
    mixed(x)
    mixed.set_weights(full.get_weights())
    result = mixed(x)
  finally:
    module.set_global_policy(before)
  assert all(t.dtype == dtype for t in tf.nest.flatten(result))
  assert all(tf.as_dtype(w.dtype) == tf.float32 for w in mixed.trainable_weights)
  for a, b in zip(flat(expected), flat(result), strict=True):
    assert np.abs(a - b).max() < 0.1 * np.abs(a).max()


@both
@pytest.mark.parametrize("name", ["LocalSelfAttention2D", "AttentionAugmentedConv2D"])
def test_tables_are_not_rounded_in_mixed_precision(flavour, name):
  _, face = FACES[flavour]
  arguments = CASES[name][0] | {"positions": "relative"}
  layer = getattr(face, name)(**arguments, dtype="mixed_bfloat16")
  x = tf.cast(batch(name), tf.bfloat16)
  layer(x)
  tables = tf_variables(flavour, [layer.relative_rows, layer.relative_columns])
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(tf.sin(tf.cast(layer(x), tf.float32)))
  for gradient in tape.gradient(loss, tables):
    rounded = tf.cast(tf.cast(gradient, tf.bfloat16), tf.float32)
    assert np.any(gradient != rounded)


@both
@each
def test_every_weight_has_a_gradient(flavour, name):
  layer, x = make(flavour, name), batch(name)
  layer(x)
  training = {"training": True} if "training" in inspect.signature(layer.call).parameters else {}
  with tf.GradientTape() as tape:
    outputs = layer(x, **training)
    loss = sum(tf.reduce_sum(tf.sin(t)) for t in tf.nest.flatten(outputs))
  variables = tf_variables(flavour, layer.trainable_weights)
  gradients = tape.gradient(loss, variables)
  for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
    assert gradient is not None, weight.name
    assert np.isfinite(np.array(gradient)).all(), weight.name
    assert np.abs(np.array(gradient)).max() > 0, weight.name
