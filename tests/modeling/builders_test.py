"""The fields of the configuration are passed to the backbone."""

import dataclasses
import inspect

import pytest

pytest.importorskip("official", reason="needs the extra garden")

import gin
import tensorflow as tf
import tf_keras
from official.vision.configs import common

from sasa_tf.configs import backbones
from sasa_tf.errors import ConfigError, UserError
from sasa_tf.modeling import builders
from sasa_tf.modeling.builders import build_errors
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


def build(window):
  config = backbones.Backbone(sasa_resnet=backbones.SASAResNet(model_id=26, **window))
  specs = tf_keras.layers.InputSpec(shape=[None, 32, 32, 3])
  return builders.build_sasa_resnet(specs, config, common.NormActivation())


@pytest.mark.parametrize(
  ("window", "message"),
  [
    ({"kernel_size": 2}, r"^task\.model\.backbone\.sasa_resnet\.kernel_size=2: .* must be odd"),
    ({"positions": "x"}, r"task\.model\.backbone\.sasa_resnet\.positions='x'"),
    ({"width_multiplier": -1.0}, r"sasa_resnet\.width_multiplier=-1\.0"),
  ],
)
def test_errors_name_the_key(window, message):
  with pytest.raises(ConfigError, match=message):
    build(window)


def test_errors_have_no_frames_of_keras_and_gin():
  @gin.configurable
  def create(window):
    return build(window)

  with pytest.raises(ConfigError) as caught, build_errors.without_gin_frames():
    create({"kernel_size": 2})
  assert "configurable" not in str(caught.value)
  keras = ValueError(
    'Exception encountered when calling layer "a" (type B).\n\nkernel_size is bad\n\n'
    "Call arguments received by layer"
  )
  with pytest.raises(ConfigError) as caught, build_errors.section_errors("m", {"kernel_size": 2}):
    raise keras
  assert str(caught.value) == "m.kernel_size=2: the model cannot be built: kernel_size is bad."


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (KeyError("vit-x"), "b.c.vit.name='vit-x': the model cannot be built: KeyError: 'vit-x'."),
    (IndexError("end"), "b.c.type='vit': the model cannot be built: IndexError: end. Correct the"),
    (
      ValueError(
        'in user code:\n\n    File "a.py", line 1, in b  *\n        c\n\n    TypeError: d'
      ),
      "b.c.type='vit': the model cannot be built: TypeError: d.",
    ),
    (
      ValueError("size for '{{node c/Conv2D}} = Conv2D[T=DT_FLOAT](x, y)' is odd"),
      "b.c.type='vit': the model cannot be built: size for Conv2D is odd.",
    ),
  ],
)
def test_errors_name_values_and_sections_in_use(error, message):
  config = {"type": "vit", "vit": {"name": "vit-x"}, "resnet": {"name": "vit-x"}}
  with pytest.raises(ConfigError) as caught, build_errors.section_errors("b.c", config):
    raise error
  assert str(caught.value).startswith(message)


def test_errors_of_the_machine_are_not_changed():
  with pytest.raises(tf.errors.UnavailableError), build_errors.section_errors("b", {}):
    raise tf.errors.UnavailableError(None, None, "worker lost")
