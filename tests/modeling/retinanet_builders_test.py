"""RetinaNet builder: parity with Model Garden's pyramid and head, and configuration fields."""

import dataclasses
import inspect

import numpy as np
import pytest

pytest.importorskip("official", reason="needs the extra garden")

import tf_keras
from official.core import exp_factory
from official.vision.modeling.decoders.fpn import FPN
from official.vision.modeling.heads.dense_prediction_heads import RetinaNetHead

from sasa_tf.configs import decoders, retinanet
from sasa_tf.modeling import builders
from sasa_tf.tf_keras import SASAFPN
from sasa_tf.tf_keras import RetinaNetHead as Head

pytestmark = pytest.mark.thorough

SPECS = {str(level): (None, 64 // 2**level, 64 // 2**level, 4 * level) for level in (2, 3, 4, 5)}
SMALL = {
  "task.model.num_classes": 4,
  "task.model.input_size": [64, 64, 3],
  "task.model.backbone.sasa_resnet.model_id": 26,
  "task.model.backbone.sasa_resnet.width_multiplier": 0.0625,
  "task.model.backbone.sasa_resnet.num_heads": 2,
  "task.model.backbone.sasa_resnet.attention_groups": [],
  "task.model.decoder.sasa_fpn.num_filters": 8,
  "task.model.decoder.sasa_fpn.spatial": "conv",
  "task.model.head.num_filters": 8,
  "task.model.head.num_convs": 1,
  "task.model.head.spatial": "conv",
}


def model_config(**changes):
  params = exp_factory.get_exp_config("retinanet_sasa_coco")
  for path, value in {**SMALL, **changes}.items():
    *parents, field = path.split(".")
    node = params
    for parent in parents:
      node = getattr(node, parent)
    node.override({field: value})
  return params.task.model


def build(**changes):
  config = model_config(**changes)
  return builders.build_retinanet(
    tf_keras.layers.InputSpec(shape=[None, *config.input_size]), config
  )


def randomize(model, seed=0):
  rng = np.random.default_rng(seed)
  model.set_weights([rng.uniform(0.1, 1, size=w.shape) for w in model.weights])


def features(specs, batch=2):
  rng = np.random.default_rng(1)
  return {
    level: rng.normal(size=(batch, *shape[1:])).astype("float32") for level, shape in specs.items()
  }


def assert_same(ours, theirs):
  assert ours.keys() == theirs.keys()
  for level, x in ours.items():
    np.testing.assert_allclose(x, theirs[level], rtol=1e-4, atol=1e-4)


def test_convolutional_pyramid_equals_model_gardens():
  ours = SASAFPN(SPECS, num_filters=8, spatial="conv")
  theirs = FPN(SPECS, num_filters=8)
  randomize(theirs)
  for layer in theirs.layers:
    if layer.weights:
      ours.get_layer(layer.name).set_weights(layer.get_weights())
  assert sum(x.size for x in ours.get_weights()) == sum(x.size for x in theirs.get_weights())
  assert_same(ours(features(SPECS)), theirs(features(SPECS)))


def test_convolutional_head_equals_model_gardens():
  specs = {str(level): (None, 2**level, 2**level, 8) for level in (3, 4)}
  ours = Head(specs, num_classes=3, num_anchors=2, num_layers=2, num_filters=8, spatial="conv")
  theirs = RetinaNetHead(3, 4, 3, 2, num_convs=2, num_filters=8)
  theirs(features(specs))
  randomize(theirs)
  for net, (convolutions, norms, predictor) in {
    "classes": (theirs._cls_convs, theirs._cls_norms, theirs._classifier),
    "boxes": (theirs._box_convs, theirs._box_norms, theirs._box_regressor),
  }.items():
    ours.get_layer(f"{net}_predictor").set_weights(predictor.get_weights())
    for i in (1, 2):
      ours.get_layer(f"{net}_{i}").set_weights(convolutions[i - 1].get_weights())
      for index, level in enumerate((3, 4)):
        norm = ours.get_layer(f"{net}_{i}_level_{level}_norm")
        norm.set_weights(norms[index][i - 1].get_weights())
  assert sum(x.size for x in ours.get_weights()) == sum(x.size for x in theirs.get_weights())
  for our_part, their_part in zip(ours(features(specs)), theirs(features(specs)), strict=False):
    assert_same(our_part, their_part)


def test_background_is_the_first_class_and_has_a_low_logit():
  model = build()
  images = np.zeros((1, 64, 64, 3), "float32")
  ours, boxes = model.head.head(model.decoder(model.backbone(images)))
  outputs = model(images, training=True)
  for level, logits in outputs["cls_outputs"].items():
    padded = np.reshape(logits, [-1, 6, 4])
    np.testing.assert_array_equal(padded[..., 1:], np.reshape(ours[level], [-1, 6, 3]))
    assert (padded[..., 0] < -1e3).all()
  assert_same(outputs["box_outputs"], boxes)


def test_checkpoint_items_contain_every_weight():
  model = build()
  parts = [x for item in model.checkpoint_items.values() for x in item.weights]
  assert {id(w) for w in parts} == {id(w) for w in model.weights}
  assert len(model.trainable_weights) > 20


def test_fields_have_the_defaults_of_the_arguments():
  own = {field.name for field in dataclasses.fields(retinanet.RetinaNetHead)} - {
    field.name for field in dataclasses.fields(retinanet.RetinaNetHead.__mro__[1])
  }
  for config, model, names in (
    (decoders.SASAFPN(), SASAFPN, None),
    (retinanet.RetinaNetHead(), Head, own | {"num_filters"}),
  ):
    arguments = inspect.signature(model.__init__).parameters
    values = dataclasses.asdict(config)
    for name in names or values:
      assert values[name] == arguments[name].default, name


def test_fields_are_passed_to_pyramid_and_head():
  changes = {
    "spatial": "attention",
    "num_filters": 12,
    "kernel_size": 3,
    "num_heads": 2,
    "positions": "none",
    "border": "mask",
    "implementation": "reference",
    "shortcut": True,
    "locality_strength": 0.0,
    "use_batch_norm": False,
  }
  fields = {"decoder.sasa_fpn": decoders.SASAFPN(), "head": retinanet.RetinaNetHead()}
  own = set(fields["decoder.sasa_fpn"].as_dict())
  assert own == set(changes) and own < set(fields["head"].as_dict())
  model = build(
    **{f"task.model.{part}.{name}": value for part in fields for name, value in changes.items()},
    **{"task.model.min_level": 4, "task.model.max_level": 5, "task.model.anchor.num_scales": 1},
    **{"task.model.head.value_stddev": None},
  )
  for part in (model.decoder, model.head.head):
    config = part.get_config()
    assert {name: config[name] for name in changes} == changes
  assert list(model.decoder.output_specs) == ["4", "5"]
  head = model.head.head.get_config()
  assert (head["num_classes"], head["num_anchors"], head["num_layers"]) == (3, 3, 1)
  assert head["value_stddev"] is None


def test_locality_is_passed_to_all_parts():
  parts = ("backbone.sasa_resnet", "decoder.sasa_fpn", "head")
  attention = {"spatial": "attention", "num_heads": 2}
  changes = {f"task.model.{part}.{k}": v for part in parts[1:] for k, v in attention.items()}
  model = build(**changes, **{f"task.model.{part}.locality_strength": 1.5 for part in parts})
  for part in (model.backbone, model.decoder, model.head.head):
    assert part.get_config()["locality_strength"] == 1.5


def test_other_decoders_of_model_garden_work():
  model = build(**{"task.model.decoder.type": "fpn", "task.model.decoder.fpn.num_filters": 8})
  assert type(model.decoder) is FPN
  outputs = model(np.zeros((1, 64, 64, 3), "float32"), training=True)
  assert list(outputs["box_outputs"]) == ["3", "4", "5", "6", "7"]


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("num_classes", 1, "counts background as class 0; received 1"),
    ("head.share_level_convs", False, "head.share_level_convs must be True"),
    ("head.use_separable_conv", True, "head.use_separable_conv must be False"),
    ("head.attribute_heads", [{"name": "depth"}], r"head.attribute_heads must be \[\]"),
  ],
)
def test_unsupported_options_of_the_head_raise(field, value, message):
  with pytest.raises(ValueError, match=message):
    build(**{f"task.model.{field}": value})
