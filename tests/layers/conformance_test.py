"""Conformance tests that every public layer and model passes in both Keras bindings.

A new public layer needs an entry in CASES; `test_table_is_complete` fails without one.
"""

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.bindings import BINDINGS, both_bindings, tf_variables

pytestmark = pytest.mark.thorough

# Channels of the levels of a pyramid, the finest first.
LEVELS = {"3": 4, "4": 6}
SMALL_ATTENTION = {
  "num_filters": 8,
  "kernel_size": 3,
  "num_heads": 2,
  "implementation": "reference",  # the fastest to trace
}

# Name -> (constructor arguments, channels of the input). With several inputs, each has half the
# size of the previous one; a list of inputs is ordered from the coarsest to the finest.
CASES = {
  # Relative positions need inputs of known size: see attention_augmented_test.
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
  # With the default of zeros the other weights have no gradient.
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
  "SASAResNetClassifier": (
    {
      "model_id": 26,
      "num_classes": 5,
      "input_shape": (None, None, 3),
      "pooling": "avg",
      "width_multiplier": 0.0625,
      "num_heads": 2,
      "stem": "conv_small",
      "attention_groups": (1, 4),
      "zero_init_residual": False,
    },
    3,
  ),
  "SqueezeExcitation2D": ({"ratio": 2}, 32),
  "UpsampleAdd2D": ({}, [3, 3]),
}
# Models whose outputs are float32 whatever the precision policy.
FLOAT32_OUTPUTS = {"SASAResNetClassifier"}
each = pytest.mark.parametrize("name", CASES)


def make(keras_api, name):
  _, binding = BINDINGS[keras_api]
  arguments, _ = CASES[name]
  return getattr(binding, name)(**arguments)


def each_input(channels, make_input):
  """Returns make_input(channels, reduction) for each input, in the structure of `channels`."""
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


def functional(keras_api, name):
  """A functional model with the layer, for images of unknown size."""
  keras, _ = BINDINGS[keras_api]
  inputs = each_input(CASES[name][1], lambda channels, _: keras.Input([None, None, channels]))
  outputs = tf.nest.flatten(make(keras_api, name)(inputs))
  pooled = [keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x for x in outputs]
  features = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
  return keras.Model(inputs, keras.layers.Dense(3)(features))


@pytest.fixture(scope="module")
def built():
  """(keras_api, name) -> the functional model, cached for tests that do not train it."""
  return functools.cache(functional)


def test_table_is_complete():
  for _, binding in BINDINGS.values():
    assert set(binding.__all__) == set(CASES)


@both_bindings
@each
def test_config_round_trip(keras_api, name):
  layer = make(keras_api, name)
  copy = type(layer).from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  x = batch(name)
  layer(x), copy(x)
  copy.set_weights(layer.get_weights())
  assert_same(layer(x), copy(x))


@both_bindings
@each
def test_trains_in_the_functional_api(keras_api, name):
  keras, _ = BINDINGS[keras_api]
  model = functional(keras_api, name)
  # Without XLA, which Keras 3 uses by default and which would compile for a minute.
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  # SGD, because tracing Adam takes longer than tracing the network.
  model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
  before = [np.array(w) for w in model.trainable_weights]
  history = model.fit(batch(name, count=4), np.array([0, 1, 2, 0]), verbose=0)
  assert np.isfinite(history.history["loss"][0])
  after = map(np.array, model.trainable_weights)
  moved = [(b != a).any() for b, a in zip(before, after, strict=True)]
  assert np.mean(moved) > 0.9  # ReLU may give a weight a zero gradient


@both_bindings
@each
def test_unknown_size_accepts_any_size(built, keras_api, name):
  model = built(keras_api, name)
  assert model(batch(name, 10, 12)).shape == model(batch(name, 7, 5)).shape == (2, 3)


@both_bindings
@each
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_saves_and_loads(built, keras_api, name, suffix, tmp_path):
  keras, _ = BINDINGS[keras_api]
  model, path, x = built(keras_api, name), str(tmp_path / f"model{suffix}"), batch(name)
  if suffix == ".keras":
    model.save(path)
    loaded = keras.models.load_model(path)
  else:
    model.save_weights(path)
    loaded = functional(keras_api, name)
    loaded.load_weights(path)
  assert_same(model(x), loaded(x), atol=1e-6)


@both_bindings
@each
def test_checkpoint(built, keras_api, name, tmp_path):
  model, copy, x = built(keras_api, name), functional(keras_api, name), batch(name)
  path = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
  tf.train.Checkpoint(model=copy).restore(path).assert_existing_objects_matched()
  assert_same(model(x), copy(x), atol=1e-6)


@both_bindings
@each
def test_saved_model(built, keras_api, name, tmp_path):
  model, x = built(keras_api, name), batch(name)
  model.export(str(tmp_path))
  served = tf.saved_model.load(str(tmp_path))
  # tf_keras exports a dictionary of inputs as a list.
  inputs = tf.nest.flatten(x) if keras_api == "tf_keras" and isinstance(x, dict) else x
  assert_same(model(x), served.serve(inputs), atol=1e-5)


@both_bindings
@each
@pytest.mark.parametrize("jit_compile", [False, True])
def test_function_equals_eager(keras_api, name, jit_compile):
  layer, x = make(keras_api, name), batch(name)
  eager = layer(x)
  compiled = tf.function(lambda inputs: layer(inputs), jit_compile=jit_compile)(x)
  assert_same(eager, compiled, atol=2e-4, rtol=2e-4)


@both_bindings
@each
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(keras_api, name, dtype):
  keras, _ = BINDINGS[keras_api]
  module = keras.mixed_precision
  x = batch(name)
  full = make(keras_api, name)
  expected = full(x)
  before = module.global_policy() if keras_api == "tf_keras" else module.dtype_policy()
  module.set_global_policy(f"mixed_{dtype}")
  try:
    mixed = make(keras_api, name)
    mixed(x)
    mixed.set_weights(full.get_weights())
    result = mixed(x)
  finally:
    module.set_global_policy(before)
  output_dtype = "float32" if name in FLOAT32_OUTPUTS else dtype
  assert all(t.dtype == output_dtype for t in tf.nest.flatten(result))
  assert all(tf.as_dtype(w.dtype) == tf.float32 for w in mixed.trainable_weights)
  for a, b in zip(flat(expected), flat(result), strict=True):
    assert np.abs(a - b).max() < 0.1 * np.abs(a).max()


# Layers with relative position embeddings, and the arguments that enable these.
WITH_RELATIVE_POSITIONS = {
  "AttentionAugmentedConv2D": {"positions": "relative"},
  "AttentionStem": {"variant": "standalone"},
  "LocalSelfAttention2D": {"positions": "relative"},
}


@both_bindings
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", WITH_RELATIVE_POSITIONS)
def test_relative_positions_stay_float32_in_mixed_precision(keras_api, name, dtype):
  _, binding = BINDINGS[keras_api]
  arguments = CASES[name][0] | WITH_RELATIVE_POSITIONS[name]
  layer = getattr(binding, name)(**arguments, dtype=f"mixed_{dtype}")
  x = tf.cast(batch(name), dtype)
  layer(x)
  tables = tf_variables(keras_api, [layer.relative_rows, layer.relative_columns])
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(tf.sin(tf.cast(layer(x), tf.float32)))
  for gradient in tape.gradient(loss, tables):
    assert gradient.dtype == tf.float32
    rounded = tf.cast(tf.cast(gradient, dtype), tf.float32)
    assert np.any(gradient != rounded)


@both_bindings
@each
def test_every_weight_has_a_gradient(keras_api, name):
  layer, x = make(keras_api, name), batch(name)
  layer(x)
  training = {"training": True} if "training" in inspect.signature(layer.call).parameters else {}
  with tf.GradientTape() as tape:
    outputs = layer(x, **training)
    loss = sum(tf.reduce_sum(tf.sin(t)) for t in tf.nest.flatten(outputs))
  variables = tf_variables(keras_api, layer.trainable_weights)
  gradients = tape.gradient(loss, variables)
  for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
    assert gradient is not None, weight.name
    assert np.isfinite(np.array(gradient)).all(), weight.name
    assert np.abs(np.array(gradient)).max() > 0, weight.name
