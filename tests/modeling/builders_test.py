"""The fields of the configuration are passed to the backbone."""

import dataclasses
import inspect

import pytest

pytest.importorskip("official", reason="needs the extra garden")

import tf_keras
from official.vision.configs import common

from sasa_tf.configs import backbones
from sasa_tf.errors import UserError
from sasa_tf.modeling import builders
from sasa_tf.tf_keras import SASAResNet


def test_fields_have_the_defaults_of_the_arguments():
  arguments = inspect.signature(SASAResNet.__init__).parameters
  for name, value in dataclasses.asdict(backbones.SASAResNet()).items():
    default = arguments[name].default
    assert value == (list(default) if isinstance(default, tuple) else default), name


def test_channels_first_is_rejected():
  config = backbones.Backbone(sasa_resnet=backbones.SASAResNet(model_id=26))
  images = tf_keras.layers.InputSpec(shape=[None, 32, 32, 3])
  tf_keras.backend.set_image_data_format("channels_first")
  try:
    with pytest.raises(UserError, match=r"'channels_last'.*received 'channels_first'"):
      builders.build_sasa_resnet(images, config, common.NormActivation())
  finally:
    tf_keras.backend.set_image_data_format("channels_last")


def test_attention_stem_has_the_configured_arguments():
  stem = {"stem": "attention", "stem_variant": "standalone", "stem_num_heads": 2}
  config = backbones.Backbone(
    sasa_resnet=backbones.SASAResNet(
      model_id=26, width_multiplier=0.0625, num_heads=2, stem_num_mixtures=3, **stem
    )
  )
  model = builders.build_sasa_resnet(
    tf_keras.layers.InputSpec(shape=[None, 32, 48, 3]), config, common.NormActivation()
  )
  layer = model.get_layer("stem")
  assert (layer.variant, layer.num_heads, layer.num_mixtures) == ("standalone", 2, 3)
  assert model.output_specs["2"][1:3] == (8, 12)
  assert {name: model.get_config()[name] for name in stem} == stem
