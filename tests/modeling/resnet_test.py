"""SASAResNet: parameters of the paper, shapes, options."""

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.bindings import BINDINGS, both_bindings, needs_tf_keras

CLASSIFIER = 2048 * 1000 + 1000
ALL = (1, 2, 3, 4)

# Trainable parameters with the 1,000-class classifier (paper Table 1, exact).
PARAMETERS = {
  (26, ()): 13_696_552,
  (38, ()): 19_626_792,
  (50, ()): 25_557_032,
  (26, ALL): 10_331_264,
  (38, ALL): 14_173_384,
  (50, ALL): 18_015_504,
}

# The same with the attention stem with 8 mixtures.
FULL_ATTENTION_PARAMETERS = {26: 10_324_032, 38: 14_166_152, 50: 18_008_272}

# Millions as printed in the paper's Table 3, conv stem, by the stages with attention.
TABLE_3 = {
  (1, 2, 3, 4): 18.0,
  (2, 3, 4): 18.1,
  (3, 4): 18.5,
  (4,): 20.8,
  (): 25.6,
  (1,): 25.5,
  (1, 2): 25.0,
  (1, 2, 3): 22.7,
}


def count(model):
  return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


# Zero kernels and the implementation that is fastest to trace; neither changes the count.
QUICK = {"kernel_initializer": "zeros", "implementation": "reference"}


def count_of_network(binding, *arguments, **others):
  """Returns the parameters including the classifier."""
  return count(binding.SASAResNet(*arguments, **QUICK, **others)) + CLASSIFIER


@both_bindings
@pytest.mark.parametrize(("model_id", "attention_groups"), PARAMETERS)
def test_parameters_match_the_paper(keras_api, model_id, attention_groups):
  _, binding = BINDINGS[keras_api]
  found = count_of_network(binding, model_id, attention_groups=attention_groups)
  print(f"{keras_api:9} R{model_id} attention {attention_groups!s:13} {found:,}")
  assert found == PARAMETERS[model_id, attention_groups]


@both_bindings
@pytest.mark.parametrize("model_id", FULL_ATTENTION_PARAMETERS)
def test_parameters_of_full_attention_match_the_paper(keras_api, model_id):
  _, binding = BINDINGS[keras_api]
  found = count_of_network(binding, model_id, "attention")
  print(f"{keras_api:9} R{model_id} full attention {found:,}")
  assert found == FULL_ATTENTION_PARAMETERS[model_id]


@pytest.mark.parametrize(
  ("arguments", "values"),
  [
    ({"stem_num_mixtures": 4}, 4 * 3 * 64 + (4 + 4 + 4) * 16),
    ({"stem_variant": "standalone"}, 3 * 64 + (7 + 7) * 8),
    ({"stem_variant": "conv_values"}, 4 * 4 * 3 * 64),
    ({"stem_num_heads": 8}, 8 * 3 * 64 + (4 + 4 + 8) * 8),
  ],
)
def test_parameters_of_the_stems_of_table_7(arguments, values):
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(26, "attention", **arguments)
  stem = sum(count(layer) for layer in model.layers if layer.name.startswith("stem"))
  assert stem == 2 * 3 * 64 + values + 2 * 64


def test_parameters_of_the_stage_combinations_of_table_3():
  _, binding = BINDINGS["keras"]
  for stages, millions in TABLE_3.items():
    found = count_of_network(binding, 50, attention_groups=stages) / 1e6
    print(f"attention in stages {stages!s:13} {found:.3f} M, paper {millions} M")
    assert abs(found - millions) < 0.1


def test_parameters_without_positions_and_without_content_match_tables_5_and_6():
  _, binding = BINDINGS["keras"]
  for arguments, millions in (
    ({"positions": "none"}, 18.0),
    ({"positions": "absolute"}, 18.0),
    ({"content": False}, 16.7),
  ):
    assert abs(count_of_network(binding, 50, **arguments) / 1e6 - millions) < 0.1


@both_bindings
def test_endpoints_and_output_specs(keras_api):
  _, binding = BINDINGS[keras_api]
  model = binding.SASAResNet(26, input_shape=(64, 96, 3))
  expected = {
    "2": (None, 16, 24, 256),
    "3": (None, 8, 12, 512),
    "4": (None, 4, 6, 1024),
    "5": (None, 2, 3, 2048),
  }
  assert {level: tuple(shape) for level, shape in model.output_specs.items()} == expected
  outputs = model(np.zeros((1, 64, 96, 3), "float32"))
  assert {level: tuple(x.shape[1:]) for level, x in outputs.items()} == {
    level: shape[1:] for level, shape in expected.items()
  }


@both_bindings
@pytest.mark.parametrize("variant", ["mixture", "standalone", "conv_values"])
def test_attention_stem_reduces_any_size_by_4(keras_api, variant):
  keras, binding = BINDINGS[keras_api]
  model = binding.SASAResNet(
    26, "attention", stem_variant=variant, attention_groups=(), width_multiplier=0.25
  )
  stem = keras.Model(model.inputs[0], model.get_layer("stem_pool").output)
  for height, width in ((32, 16), (30, 17), (3, 1)):
    shape = stem(np.zeros((1, height, width, 3), "float32")).shape
    assert tuple(shape) == (1, -(-height // 4), -(-width // 4), 16)


def test_attention_stem_is_attention_batch_norm_and_max_pooling():
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(26, "attention")
  kinds = [(x.name, type(x).__name__) for x in model.layers[1:4]]
  assert kinds == [
    ("stem", "AttentionStem"),
    ("stem_norm", "BatchNormalization"),
    ("stem_pool", "StemPooling2D"),
  ]


@pytest.mark.parametrize(
  ("arguments", "width"),
  [
    ({}, 64),
    ({"width_multiplier": 0.25}, 16),
    ({"width_multiplier": 0.4}, 32),
    ({"width_multiplier": 0.0625, "num_heads": 2}, 8),
    ({"width_multiplier": 0.5, "num_heads": 6}, 24),
  ],
)
def test_scaled_attention_stem_has_even_heads(arguments, width):
  _, binding = BINDINGS["keras"]
  stem = binding.SASAResNet(26, "attention", stem_variant="standalone", **arguments).get_layer(
    "stem"
  )
  assert (stem.filters, stem.num_heads) == (width, 4)
  assert stem.head_dim % 2 == 0


def test_small_stem_keeps_the_resolution():
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(26, "conv_small", width_multiplier=0.25, input_shape=(32, 32, 3))
  assert tuple(model.output_specs["2"]) == (None, 32, 32, 64)
  assert tuple(model.output_specs["5"]) == (None, 4, 4, 512)


@pytest.mark.parametrize(
  ("multiplier", "widths"),
  [(1.0, (64, 128, 256, 512)), (0.25, (16, 32, 64, 128)), (0.4, (32, 48, 96, 208))],
)
def test_width_multiplier_rounds_to_even_heads(multiplier, widths):
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(26, width_multiplier=multiplier)
  assert [model.output_specs[level][-1] for level in "2345"] == [4 * width for width in widths]


def test_attention_is_used_in_the_selected_stages_only():
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(26, attention_groups=[4, 2])
  spatial = {x.name: type(x).__name__ for x in model.layers if x.name.endswith("_spatial")}
  assert {name for name, kind in spatial.items() if kind == "LocalSelfAttention2D"} == {
    name for name in spatial if name.startswith(("group2", "group4"))
  }
  assert len(spatial) == 8


def test_group_strides_set_the_resolution_of_the_stages():
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(
    26, "conv_small", width_multiplier=0.25, group_strides=(1, 1, 2, 1), input_shape=(8, 8, 3)
  )
  assert [tuple(model.output_specs[level][1:3]) for level in "2345"] == [
    (8, 8),
    (8, 8),
    (4, 4),
    (4, 4),
  ]


def test_spatial_operations_of_the_first_blocks_have_the_strides():
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNet(26)
  strides = [x.strides for x in model.layers if x.name.endswith("block1_spatial")]
  assert strides == [1, 2, 2, 2]


@both_bindings
def test_initial_weights_of_layers_differ(keras_api):
  _, binding = BINDINGS[keras_api]
  model = binding.SASAResNet(26, width_multiplier=0.25)
  first, second = (
    np.array(model.get_layer(f"group2_block{block}_spatial").query_kernel) for block in (1, 2)
  )
  assert first.shape == second.shape and not np.allclose(first, second)


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"model_id": 18}, r"model_id must be one of \(26, 38, 50\); received 18"),
    ({"attention_groups": (0, 5)}, r"subset of the stages 1, 2, 3 and 4 .*received \(0, 5\)"),
    ({"attention_groups": 4}, "subset of the stages 1, 2, 3 and 4 .*received 4"),
    ({"attention_groups": ("1", 2)}, "subset of the stages 1, 2, 3 and 4"),
    ({"stem": "patch"}, "stem must be one of"),
    ({"stem": "attention", "stem_variant": "conv"}, "variant must be one of"),
    ({"stem": "attention", "stem_num_mixtures": 0}, "num_mixtures must be a positive int"),
    ({"stem": "attention", "stem_num_heads": 0}, "stem_num_heads must be positive"),
    ({"num_heads": 0}, "num_heads and stem_num_heads must be positive"),
    ({"group_strides": (1, 2, 2)}, "four strides, each 1 or 2"),
    ({"width_multiplier": 0}, "width_multiplier must be positive"),
    ({"width_multiplier": float("nan")}, "width_multiplier must be positive and finite"),
    ({"width_multiplier": float("inf")}, "width_multiplier must be positive and finite"),
    ({"kernel_size": 8}, "must be odd"),
    ({"positions": "learned"}, "positions must be one of"),
  ],
)
def test_bad_arguments(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.SASAResNet(**arguments)


@both_bindings
@pytest.mark.parametrize(
  "model", ["SASAResNet", "SASAResNetClassifier", "SASAFPN", "RetinaNetHead"]
)
def test_unknown_argument_is_an_error(keras_api, model):
  levels = {str(level): (None, size, size, 16) for level, size in ((3, 8), (4, 4), (5, 2))}
  arguments = {
    "SASAFPN": {"input_specs": levels},
    "RetinaNetHead": {"input_specs": levels, "num_classes": 2, "num_anchors": 1},
  }
  with pytest.raises(
    TypeError, match=r"keyword argument 'kernel_siz'\. Did you mean 'kernel_size'"
  ):
    getattr(BINDINGS[keras_api][1], model)(**arguments.get(model, {}), kernel_siz=3)


@needs_tf_keras
def test_zero_init_residual_prevents_exploding_gradients():
  """Without it the gradients of ResNet-50 are 10,000 times larger."""
  tf_keras, binding = BINDINGS["tf_keras"]
  images = tf.random.stateless_normal([2, 32, 32, 3], [1, 2])
  norms = {}
  for zero in (True, False):
    model = binding.SASAResNet(
      50,
      "conv_small",
      width_multiplier=0.125,
      zero_init_residual=zero,
      input_shape=(32, 32, 3),
      kernel_initializer=tf_keras.initializers.VarianceScaling(seed=3),
    )
    last = [w for w in model.weights if "_expand_norm/gamma" in w.name]
    assert len(last) == 16
    assert all(np.all(w.numpy() == (0 if zero else 1)) for w in last)
    with tf.GradientTape() as tape:
      loss = tf.reduce_mean(model(images, training=True)["5"] ** 2)
    norms[zero] = tf.linalg.global_norm(tape.gradient(loss, model.trainable_weights)).numpy()
  assert norms[True] < 10 < 100 < norms[False]
