"""Pyramid and head: parameters of the paper's Table 2, shapes, options, initial predictions."""

import math

import numpy as np
import pytest

from tests.layers.bindings import BINDINGS, both_bindings

pytestmark = pytest.mark.thorough

# Trainable parameters of the backbones without classifier; tested in resnet_test.
BACKBONES = {
  "resnet50": 25_557_032 - 2_049_000,
  "sasa_resnet50_conv_stem": 18_015_504 - 2_049_000,
  "sasa_resnet50": 18_008_272 - 2_049_000,
}
# (backbone, pyramid, head) -> trainable parameters with and without the batch norms of pyramid and
# head, which the paper does not mention, and millions as printed in Table 2.
TABLE_2 = {
  ("resnet50", "conv", "conv"): (33_420_404, 33_397_364, 33.4),
  ("sasa_resnet50_conv_stem", "conv", "conv"): (25_878_876, 25_855_836, 25.9),
  ("sasa_resnet50", "conv", "conv"): (25_871_644, 25_848_604, 25.9),
  ("sasa_resnet50_conv_stem", "conv", "attention"): (21_971_484, 21_948_444, 22.0),
  ("sasa_resnet50", "conv", "attention"): (21_964_252, 21_941_212, 22.0),
  # The alternative interpretation of the last two rows.
  ("sasa_resnet50_conv_stem", "attention", "attention"): (20_005_244, 19_982_204, None),
  ("sasa_resnet50", "attention", "attention"): (19_998_012, 19_974_972, None),
}
R50 = {str(level): (None, None, None, 64 * 2**level) for level in (2, 3, 4, 5)}
SMALL = {str(level): (None, None, None, 4 * level) for level in (2, 3, 4, 5)}
TINY = {"num_filters": 8, "kernel_size": 3, "num_heads": 2, "implementation": "reference"}
SPATIAL = pytest.mark.parametrize("spatial", ["conv", "attention"])


def count(model):
  return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.fixture(scope="module")
def parts():
  """{(spatial, use_batch_norm): parameters} of pyramids and of heads."""
  _, binding = BINDINGS["keras"]
  pyramids, heads = {}, {}
  for key in [(spatial, norm) for spatial in ("conv", "attention") for norm in (True, False)]:
    spatial, norm = key
    pyramid = binding.SASAFPN(R50, spatial=spatial, use_batch_norm=norm)
    specs = pyramid.output_specs
    head = binding.RetinaNetHead(specs, 90, 6, spatial=spatial, use_batch_norm=norm)
    pyramids[key], heads[key] = count(pyramid), count(head)
  return pyramids, heads


@pytest.mark.parametrize("row", TABLE_2, ids="-".join)
def test_parameters_of_table_2(parts, row):
  pyramids, heads = parts
  backbone, pyramid, head = row
  *expected, printed = TABLE_2[row]
  found = [
    BACKBONES[backbone] + pyramids[pyramid, norm] + heads[head, norm] for norm in (True, False)
  ]
  assert found == expected
  for parameters in found:
    assert printed is None or abs(parameters / 1e6 - printed) < 0.06


def test_parameters_do_not_depend_on_the_binding():
  sizes = set()
  for _, binding in BINDINGS.values():
    pyramid = binding.SASAFPN(SMALL, **TINY)
    head = binding.RetinaNetHead(pyramid.output_specs, 3, 2, num_layers=1, **TINY)
    sizes.add((count(pyramid), count(head)))
  assert len(sizes) == 1


def features(height, width, specs=SMALL):
  rng = np.random.default_rng(0)
  return {
    level: rng.normal(
      size=(2, -(-height // 2 ** int(level)), -(-width // 2 ** int(level)), c)
    ).astype("float32")
    for level, (*_, c) in specs.items()
  }


@both_bindings
@SPATIAL
def test_shapes_of_all_levels_for_any_image_size(keras_api, spatial):
  _, binding = BINDINGS[keras_api]
  pyramid = binding.SASAFPN(SMALL, spatial=spatial, **TINY)
  head = binding.RetinaNetHead(pyramid.output_specs, 3, 2, num_layers=1, spatial=spatial, **TINY)
  assert {level: tuple(s) for level, s in pyramid.output_specs.items()} == {
    str(level): (None, None, None, 8) for level in range(3, 8)
  }
  for height, width in ((128, 256), (100, 37)):
    scores, boxes = head(pyramid(features(height, width)))
    for outputs, channels in ((scores, 2 * 3), (boxes, 2 * 4)):
      assert {level: tuple(x.shape) for level, x in outputs.items()} == {
        str(n): (2, math.ceil(height / 2**n), math.ceil(width / 2**n), channels)
        for n in range(3, 8)
      }


@both_bindings
@SPATIAL
def test_initial_classes_have_the_prior_and_boxes_are_the_anchors(keras_api, spatial):
  _, binding = BINDINGS[keras_api]
  specs = {"3": (None, None, None, 8), "4": (None, None, None, 8)}
  head = binding.RetinaNetHead(specs, 3, 2, num_layers=1, spatial=spatial, **TINY)
  bias = np.array(head.get_layer("classes_predictor").bias)
  np.testing.assert_allclose(bias, -math.log(0.99 / 0.01), rtol=1e-6)
  assert not np.array(head.get_layer("boxes_predictor").bias).any()
  scores, boxes = head(features(32, 32, specs))
  np.testing.assert_allclose(1 / (1 + np.exp(-np.array(scores["3"]))), 0.01, rtol=0.2)
  assert np.abs(boxes["3"]).max() < 0.2


@both_bindings
def test_initial_value_kernels_of_the_head_are_small(keras_api):
  _, binding = BINDINGS[keras_api]
  specs = {"3": (None, None, None, 64), "4": (None, None, None, 64)}
  head = binding.RetinaNetHead(specs, 3, 2, num_layers=1, **{**TINY, "num_filters": 64})
  for name in ("classes_1", "boxes_1", "classes_predictor_spatial"):
    layer = head.get_layer(name)
    assert abs(np.std(layer.value_kernel) - 0.01) < 0.001
    assert np.std(layer.query_kernel) > 0.05
  assert abs(np.std(head.get_layer("boxes_predictor").kernel) - 0.01) < 0.002
  first, second = (np.array(head.get_layer(n).value_kernel) for n in ("classes_1", "boxes_1"))
  assert not np.allclose(first, second)


def test_levels_share_kernels_but_not_batch_norms():
  _, binding = BINDINGS["keras"]
  specs = {level: (None, None, None, 8) for level in "34"}
  head = binding.RetinaNetHead(specs, 3, 2, num_layers=2, **TINY)
  kinds = {}
  for layer in head.layers:
    kinds.setdefault(type(layer).__name__, []).append(layer.name)
  assert sorted(kinds["LocalSelfAttention2D"]) == sorted(
    f"{net}_{part}" for net in ("classes", "boxes") for part in ("1", "2", "predictor_spatial")
  )
  assert sorted(kinds["BatchNormalization"]) == sorted(
    f"{net}_{i}_level_{level}_norm" for net in ("classes", "boxes") for i in "12" for level in "34"
  )
  assert head.get_layer("classes_predictor").kernel_size == (1, 1)
  assert "BatchNormalization" not in {
    type(x).__name__
    for x in binding.RetinaNetHead(specs, 3, 2, use_batch_norm=False, **TINY).layers
  }


def test_attention_replaces_the_3x3_convolutions():
  _, binding = BINDINGS["keras"]
  attention, conv = (
    {x.name: x for x in binding.SASAFPN(SMALL, spatial=spatial, **TINY).layers}
    for spatial in ("attention", "conv")
  )
  assert attention.keys() == conv.keys()
  changed = {name for name in conv if type(conv[name]) is not type(attention[name])}
  assert changed == {"post_hoc_3", "post_hoc_4", "post_hoc_5", "coarser_6", "coarser_7"}
  assert all(conv[name].kernel_size == (3, 3) for name in changed)
  assert [attention[f"coarser_{level}"].strides for level in (6, 7)] == [2, 2]


@pytest.mark.parametrize(("min_level", "max_level"), [(2, 4), (3, 3), (5, 8)])
def test_levels_of_the_pyramid(min_level, max_level):
  _, binding = BINDINGS["keras"]
  pyramid = binding.SASAFPN(SMALL, min_level, max_level, **TINY)
  outputs = pyramid(features(64, 64))
  assert list(outputs) == [str(level) for level in range(min_level, max_level + 1)]


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"spatial": "convolution"}, r"spatial must be one of \('conv', 'attention'\)"),
    ({"min_level": 1}, r"min_level must be a level of .* min_level=1.*\(2, 3, 4, 5\)"),
    ({"max_level": 2}, "max_level must not be finer; received min_level=3, max_level=2"),
    ({"input_specs": {"a": (None, None, None, 3)}}, r"consecutive levels.*\['a'\]"),
    ({"input_specs": {"3": SMALL["3"], "5": SMALL["5"]}}, r"consecutive levels.*\['3', '5'\]"),
    ({"num_filters": 12, "num_heads": 8}, "filters must be a multiple of num_heads"),
  ],
)
def test_bad_arguments_of_the_pyramid(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.SASAFPN(**{"input_specs": SMALL, **TINY, **arguments})


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"num_classes": 0}, "num_classes must be a positive int; received 0"),
    ({"num_anchors": 2.0}, r"num_anchors must be a positive int; received 2\.0"),
    ({"num_layers": -1}, "num_layers must be 0 or a positive int; received -1"),
    ({"input_specs": SMALL}, "same known number of channels"),
    ({"spatial": None}, "spatial must be one of"),
  ],
)
def test_bad_arguments_of_the_head(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  specs = {"3": (None, None, None, 8)}
  with pytest.raises(ValueError, match=message):
    binding.RetinaNetHead(
      **{"input_specs": specs, "num_classes": 3, "num_anchors": 2, **TINY, **arguments}
    )


@both_bindings
def test_shortcuts_of_the_pyramid_add_the_input_of_the_attention(keras_api):
  keras, binding = BINDINGS[keras_api]
  pyramid = binding.SASAFPN(SMALL, shortcut=True, use_batch_norm=False, activation="linear", **TINY)
  for level in (3, 4, 5):
    layer = pyramid.get_layer(f"post_hoc_{level}")
    layer.value_kernel.assign(np.zeros((8, 8)))
  for level in (6, 7):
    layer = pyramid.get_layer(f"coarser_{level}")
    layer.value_kernel.assign(np.zeros((8, 8)))
  # Odd sizes: the windows at the border average the pixels inside the feature map.
  images = features(96, 160)
  outputs = pyramid(images)
  merged = keras.Model(pyramid.inputs, pyramid.get_layer("top_down_3").output)(images)
  np.testing.assert_allclose(outputs["3"], merged, atol=1e-6)
  pool = keras.layers.AveragePooling2D(2, padding="same")
  np.testing.assert_allclose(outputs["6"], pool(outputs["5"]), atol=1e-6)
  np.testing.assert_allclose(outputs["7"], pool(outputs["6"]), atol=1e-6)


@both_bindings
def test_shortcuts_of_the_head(keras_api):
  _, binding = BINDINGS[keras_api]
  specs = {level: (None, None, None, 8) for level in "34"}
  head = binding.RetinaNetHead(
    specs, 3, 2, num_layers=1, shortcut=True, use_batch_norm=False, activation="linear", **TINY
  )
  for name in ("boxes_1", "boxes_predictor_spatial"):
    head.get_layer(name).value_kernel.assign(np.zeros((8, 8)))
  inputs = features(32, 32, specs)
  _, boxes = head(inputs)
  predictor = head.get_layer("boxes_predictor")
  for level in "34":
    expected = inputs[level] @ np.array(predictor.kernel)[0, 0]
    np.testing.assert_allclose(boxes[level], expected, atol=1e-5)


def test_layers_without_equal_widths_have_no_shortcut():
  _, binding = BINDINGS["keras"]
  specs = {"3": (None, None, None, 6)}
  head = binding.RetinaNetHead(specs, 3, 2, num_layers=2, shortcut=True, **TINY)
  names = {layer.name for layer in head.layers}
  assert "classes_1_level_3_add" not in names
  assert {"classes_2_level_3_add", "classes_predictor_spatial_level_3_add"} <= names


@pytest.mark.parametrize("spatial", ["conv", "attention"])
def test_switches_without_effect_on_convolutions(spatial):
  _, binding = BINDINGS["keras"]
  specs = {"3": (None, None, None, 8)}
  sizes = {
    (
      count(binding.SASAFPN(SMALL, spatial=spatial, **switches, **TINY)),
      count(binding.RetinaNetHead(specs, 3, 2, spatial=spatial, **switches, **TINY)),
    )
    for switches in ({}, {"shortcut": True, "locality_strength": 1.0})
  }
  assert len(sizes) == (1 if spatial == "conv" else 2)


@both_bindings
@pytest.mark.parametrize(("stddev", "expected"), [(0.05, 0.05), (None, (2 / 128) ** 0.5)])
def test_initial_value_kernels(keras_api, stddev, expected):
  _, binding = BINDINGS[keras_api]
  specs = {"3": (None, None, None, 64)}
  arguments = {**TINY, "num_filters": 64, "num_layers": 1, "value_stddev": stddev}
  head = binding.RetinaNetHead(specs, 3, 2, **arguments)
  for name in ("classes_1", "boxes_predictor_spatial"):
    assert abs(np.std(head.get_layer(name).value_kernel) / expected - 1) < 0.1


@both_bindings
def test_switches_are_serialized(keras_api):
  _, binding = BINDINGS[keras_api]
  switches = {"shortcut": True, "locality_strength": 2.0}
  pyramid = binding.SASAFPN(SMALL, **switches, **TINY)
  head = binding.RetinaNetHead(
    pyramid.output_specs, 3, 2, num_layers=1, value_stddev=None, **switches, **TINY
  )
  for model in (pyramid, head):
    copy = type(model).from_config(model.get_config())
    assert copy.get_config() == model.get_config()
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]
