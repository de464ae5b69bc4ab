"""Baselines of the introduction in SASAResNet: parameters, layers, values."""

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.bindings import BINDINGS, both_bindings, tf_variables

CLASSIFIER = 2048 * 1000 + 1000
BASELINES = ("squeeze_excitation", "non_local", "attention_augmented")

# Trainable parameters with the 1,000-class classifier, 224 x 224. Squeeze-and-excitation has
# the count of public SE-ResNet-50s. Non-local adds, at 512 and 1024 channels, 4 C (C / 2) + 2 C.
# Attention augmentation is published as 25.8 M.
PARAMETERS = {
  "squeeze_excitation": 28_088_024,
  "non_local": 25_557_032 + 2 * (2 * 512**2 + 2 * 512) + 3 * (2 * 1024**2 + 2 * 1024),
  "attention_augmented": 25_781_872,
}
SMALL = {
  "model_id": 26,
  "width_multiplier": 0.0625,
  "num_heads": 2,
  "input_shape": (32, 32, 3),
}


def count(model):
  return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def small(binding, baseline, **arguments):
  return binding.SASAResNet(**{**SMALL, "attention_groups": (), "baseline": baseline, **arguments})


def kinds(model, kind):
  return {layer.name: layer for layer in model.layers if type(layer).__name__ == kind}


def images(count=2):
  return np.random.default_rng(0).normal(size=(count, 32, 32, 3)).astype("float32")


@pytest.mark.parametrize("baseline", BASELINES)
def test_parameters_of_resnet_50(baseline):
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(50, attention_groups=(), baseline=baseline, input_shape=(224, 224, 3))
  print(f"{baseline:19} {count(model) + CLASSIFIER:,}")
  assert count(model) + CLASSIFIER == PARAMETERS[baseline]
  # The published widths: keys of at least 20 in each of 8 heads, values of a tenth of the filters.
  augmented = kinds(model, "AttentionAugmentedConv2D").values()
  assert {(x.filters, x.key_filters, x.value_filters, x.num_heads) for x in augmented} == (
    {(128, 160, 16, 8), (256, 160, 24, 8), (512, 160, 48, 8)} if augmented else set()
  )


@both_bindings
def test_squeeze_and_excitation_precedes_the_addition_of_every_block(keras_api):
  _, binding = BINDINGS[keras_api]
  model = small(binding, "squeeze_excitation", attention_groups=(3, 4))
  gates = kinds(model, "SqueezeExcitation2D")
  assert set(gates) == {
    f"group{stage}_block{block}_recalibration" for stage, block in ((1, 1), (2, 1), (2, 2))
  }
  for name, layer in gates.items():
    before, after = (
      model.get_layer(name.replace("recalibration", part)) for part in ("expand_norm", "add")
    )
    assert layer.ratio == 16
    assert layer.input is before.output
    assert after.input[0] is layer.output


@pytest.mark.parametrize(
  ("model_id", "after"),
  [
    (26, {"group2_block2", "group3_block2", "group3_block4"}),
    (38, {"group2_block2", "group3_block2", "group3_block4"}),
    (
      50,
      {"group2_block2", "group2_block4", "group3_block2", "group3_block4", "group3_block6"},
    ),
  ],
)
def test_non_local_blocks_follow_every_second_block_of_stages_2_and_3(model_id, after):
  _, binding = BINDINGS["keras"]
  model = small(binding, "non_local", model_id=model_id)
  blocks = kinds(model, "NonLocal2D")
  assert set(blocks) == {f"{name}_context" for name in after}
  assert all(layer.inner_filters == layer.input.shape[-1] // 2 for layer in blocks.values())


@both_bindings
def test_non_local_network_initially_equals_the_convolutional_one(keras_api):
  _, binding = BINDINGS[keras_api]
  plain, other = small(binding, "conv"), small(binding, "non_local")
  for layer in plain.layers:
    other.get_layer(layer.name).set_weights(layer.get_weights())
  expected, result = plain(images()), other(images())
  for level in expected:
    np.testing.assert_allclose(result[level], expected[level], atol=1e-6)


def test_attention_augments_the_convolutions_of_the_last_three_stages():
  _, binding = BINDINGS["keras"]
  model = small(binding, "attention_augmented", attention_groups=(4,), positions="absolute")
  augmented = kinds(model, "AttentionAugmentedConv2D")
  assert set(augmented) == {
    f"group{stage}_block{block}_spatial"
    for stage, blocks in ((2, 2), (3, 4))
    for block in range(1, blocks + 1)
  }
  assert all(x.positions == "absolute" and x.kernel_size == 3 for x in augmented.values())
  assert [x.strides for x in augmented.values()] == [2, 1, 2, 1, 1, 1]
  assert type(model.get_layer("group1_block1_spatial")).__name__ == "Conv2D"
  assert type(model.get_layer("group4_block1_spatial")).__name__ == "LocalSelfAttention2D"


@both_bindings
@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_trains(keras_api, baseline):
  keras, binding = BINDINGS[keras_api]
  model = small(binding, baseline, kernel_regularizer=keras.regularizers.L2(1e-4))
  with tf.GradientTape() as tape:
    outputs = model(images(), training=True)
    loss = sum(tf.reduce_mean(tf.sin(x)) for x in outputs.values())
  assert [tuple(x.shape[1:3]) for x in outputs.values()] == [(8, 8), (4, 4), (2, 2), (1, 1)]
  variables = tf_variables(keras_api, model.trainable_weights)
  gradients = tape.gradient(loss, variables)
  assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
  regularized = [
    w for w in model.trainable_weights if len(w.shape) > 1 and "relative" not in w.name
  ]
  assert len(model.losses) == len(regularized)


def test_config_round_trip():
  _, binding = BINDINGS["keras"]
  model = small(binding, "squeeze_excitation")
  copy = type(model).from_config(model.get_config())
  assert copy.get_config() == model.get_config()
  assert kinds(copy, "SqueezeExcitation2D").keys() == kinds(model, "SqueezeExcitation2D").keys()


def test_augmentation_without_relative_positions_accepts_unknown_sizes():
  _, binding = BINDINGS["keras"]
  model = small(binding, "attention_augmented", positions="none", input_shape=(None, None, 3))
  assert model(images()[:, :, :20])["5"].shape == (2, 1, 1, 128)


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"baseline": "cbam"}, r"baseline must be one of \('conv', 'squeeze_excitation'.*'cbam'"),
    (
      {"baseline": "squeeze_excitation", "attention_groups": (1, 2, 3, 4)},
      r"expected at least one, received attention_groups=\(1, 2, 3, 4\).*attention_groups=\(\)",
    ),
    ({"baseline": "non_local", "attention_groups": (2, 3)}, r"the stages \(2, 3\)"),
    ({"baseline": "attention_augmented", "attention_groups": (4, 3, 2)}, r"\(2, 3, 4\)"),
    (
      {"baseline": "attention_augmented", "input_shape": (None, None, 3)},
      r"needs to know the H and W.*input_shape=\(224, 224, 3\)",
    ),
  ],
)
def test_bad_arguments(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.SASAResNet(**{**SMALL, "attention_groups": (), **arguments})
