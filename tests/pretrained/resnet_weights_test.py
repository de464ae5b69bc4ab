"""Weights of the ResNet-50 of keras.applications and of Model Garden, in our networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.vision.modeling.backbones import resnet

from sasa_tf.errors import UserError
from sasa_tf.modeling.weights import named_weights, weight_values
from sasa_tf.pretrained.resnet_weights import (
  ResNetWeights,
  from_keras_application,
  from_model_garden,
)
from sasa_tf.pretrained.sources import read_keras_application, read_model, read_model_garden
from sasa_tf.pretrained.transfer import transfer_weights
from tests.layers.bindings import BINDINGS, both_bindings, needs_tf_keras

# Networks of full width take seconds to create; the other binding is tested with the slow tests.
BOTH_SLOW = pytest.mark.parametrize(
  "keras_api", ["keras", pytest.param("tf_keras", marks=[needs_tf_keras, pytest.mark.slow])]
)
# Odd at each halving, where padding "same" and keras.applications' explicit padding agree.
ODD_IMAGE = (65, 81, 3)


def randomize(model):
  """Assigns random values to all weights, also to biases and moving statistics."""
  rng = np.random.default_rng(0)
  for weight in model.weights:
    value = rng.normal(size=weight.shape, scale=1 / np.sqrt(max(1, np.prod(weight.shape[:-1]))))
    weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)


def convolutional(keras_api, model_id=50, **arguments):
  _, binding = BINDINGS[keras_api]
  return binding.SASAResNet(model_id, attention_groups=(), **arguments)


def images(height=64, width=80, batch=1):
  return np.random.default_rng(1).uniform(0, 255, (batch, height, width, 3)).astype("float32")


@pytest.fixture(scope="module")
def application():
  model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(None, None, 3))
  randomize(model)
  return model


@pytest.fixture(scope="module")
def garden():
  specs = tf_keras.layers.InputSpec(shape=[None, None, None, 3])
  model = resnet.ResNet(50, input_specs=specs, norm_epsilon=1e-3)
  randomize(model)
  return model


@BOTH_SLOW
def test_first_stage_equals_that_of_keras_applications(keras_api, application):
  weights = from_keras_application(application, caffe_inputs=False)
  assert (weights.model_id, weights.num_classes) == (50, 0)
  model = convolutional(keras_api, norm_epsilon=weights.norm_epsilon)
  result = transfer_weights(weights, model)
  assert not result.initialized and not result.unused
  assert len(result.copied) == len(model.weights)
  x = images(*ODD_IMAGE[:2])
  first = keras.Model(application.inputs, application.get_layer("conv2_block3_out").output)
  np.testing.assert_allclose(model(x)["2"], first(x), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_every_block_equals_its_block_in_keras_applications(application):
  """Blocks after the first of a stage have no stride, so that each computes the same function."""
  weights = from_keras_application(application, caffe_inputs=False)
  model = convolutional("keras", norm_epsilon=weights.norm_epsilon)
  transfer_weights(weights, model)
  rng = np.random.default_rng(2)
  for stage, blocks in enumerate((3, 4, 6, 3), start=1):
    names = (
      (application, f"conv{stage + 1}_block1_out", f"conv{stage + 1}_block{blocks}_out"),
      (model, f"group{stage}_block1_activation", f"group{stage}_block{blocks}_activation"),
    )
    x = np.abs(rng.normal(size=(1, 7, 9, 128 * 2**stage))).astype("float32")
    theirs, ours = (
      keras.Model(net.get_layer(first).output, net.get_layer(last).output)(x)
      for net, first, last in names
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_caffe_inputs_are_converted(application):
  weights = from_keras_application(application)
  model = convolutional("keras", norm_epsilon=weights.norm_epsilon)
  transfer_weights(weights, model)
  _, binding = BINDINGS["keras"]
  x = images(*ODD_IMAGE[:2])
  ours = model(binding.SASAResNetClassifier.preprocess(x))["2"]
  first = keras.Model(application.inputs, application.get_layer("conv2_block3_out").output)
  theirs = np.array(first(keras.applications.resnet.preprocess_input(x.copy())))
  # At the border, the padding is another gray value by less than half a level.
  difference = np.abs(ours - theirs)[:, 6:-6, 6:-6].max()
  assert difference < 1e-3 * np.abs(theirs).max()


@BOTH_SLOW
def test_all_levels_equal_those_of_model_garden(keras_api, garden):
  weights = from_model_garden(garden, norm_epsilon=1e-3)
  model = convolutional(keras_api, norm_epsilon=weights.norm_epsilon)
  transfer_weights(weights, model)
  x = images()
  theirs = garden(x, training=False)
  for level, ours in model(x).items():
    np.testing.assert_allclose(ours, theirs[level], rtol=1e-3, atol=1e-3)


@BOTH_SLOW
@pytest.mark.parametrize("stem", ["conv", "attention"])
def test_attention_takes_the_place_of_3x3_convolutions(keras_api, stem, application):
  _, binding = BINDINGS[keras_api]
  weights = from_keras_application(application, caffe_inputs=False)
  model = binding.SASAResNet(50, stem, (2, 3, 4), norm_epsilon=weights.norm_epsilon)
  before = weight_values(model)
  result = transfer_weights(weights, model)
  attention = [
    f"group{stage}_block{block}_spatial"
    for stage, blocks in zip((2, 3, 4), (4, 6, 3), strict=True)
    for block in range(1, blocks + 1)
  ]
  stems = ["stem"] if stem == "attention" else []
  assert result.initialized == stems + attention
  assert result.unused == sorted(f"{layer}/kernel" for layer in stems + attention)
  after = weight_values(model)
  for name, value in after.items():
    expected = weights.values[name] if name in result.copied else before[name]
    np.testing.assert_array_equal(value, expected)
  assert {"group1_block1_spatial/kernel", "group4_block3_expand/kernel"} < set(result.copied)
  assert ("stem/kernel" in result.copied) == (stem == "conv")


@pytest.mark.slow
def test_classifier(tmp_path):
  source = keras.applications.ResNet50(weights=None, classes=7)
  file = tmp_path / "model.weights.h5"
  source.save_weights(file)
  weights = read_keras_application(file, num_classes=7)
  assert weights.num_classes == 7
  _, binding = BINDINGS["keras"]
  model = binding.SASAResNetClassifier(50, 7, (64, 64, 3))
  assert "classifier" not in transfer_weights(weights, model).initialized
  kernel = np.array(source.get_layer("predictions").kernel)
  np.testing.assert_array_equal(model.get_layer("classifier").kernel, kernel)
  other = binding.SASAResNetClassifier(50, 3, (64, 64, 3))
  with pytest.raises(UserError, match=r"classifier/kernel has shape \(2048, 7\) \(expected"):
    transfer_weights(weights, other)
  with pytest.raises(UserError, match=r"with 1000 classes or without its classifier: "):
    read_keras_application(file)


@pytest.mark.slow
def test_files_of_keras_applications(tmp_path, application):
  expected = from_keras_application(application).values
  for name in ("model.keras", "model.weights.h5"):
    file = tmp_path / name
    (application.save if name == "model.keras" else application.save_weights)(file)
    found = read_keras_application(file).values
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["stem/kernel"], expected["stem/kernel"])


@pytest.mark.slow
def test_checkpoints_of_model_garden(tmp_path, garden):
  checkpoint = tf.train.Checkpoint(backbone=garden)
  path = checkpoint.save(str(tmp_path / "ckpt"))
  expected = from_model_garden(garden, norm_epsilon=1e-5).values
  for given in (str(tmp_path), path):
    found = read_model_garden(given).values
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(
      found["group4_block3_expand/kernel"], expected["group4_block3_expand/kernel"]
    )
  with pytest.raises(
    UserError, match=r"does not hold Model Garden's ResNet-101.*in the checkpoint.*and \d+ more"
  ):
    read_model_garden(path, model_id=101)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("ResNet101", r"\[3, 4, 23, 3\] bottleneck blocks.*Use a ResNet-50"),
    ("ResNet50V2", "layer 'conv2_block1_preact_bn', which keras.applications.ResNet50 does not"),
    ("MobileNetV2", "layer 'Conv1', which keras.applications.ResNet50 does not have"),
  ],
)
def test_other_architectures_are_rejected(name, message):
  shape = (224, 224, 3)
  model = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=shape)
  with pytest.raises(UserError, match=message):
    from_keras_application(model)


def test_other_model_garden_backbones_are_rejected():
  specs = tf_keras.layers.InputSpec(shape=[None, 64, 64, 3])
  for arguments, message in (
    ({"model_id": 18}, "no ResNet of bottleneck blocks"),
    ({"model_id": 50, "stem_type": "v1"}, "with the stem v0"),
  ):
    with pytest.raises(UserError, match=message):
      from_model_garden(resnet.ResNet(input_specs=specs, **arguments), norm_epsilon=1e-5)


def test_other_depths_and_widths_are_rejected(application):
  weights = from_keras_application(application)
  with pytest.raises(UserError, match="those of a ResNet-50, but the model has model_id=26"):
    transfer_weights(weights, convolutional("keras", 26))
  narrow = convolutional("keras", width_multiplier=0.25)
  before = weight_values(narrow)
  with pytest.raises(UserError, match=r"stem_norm/gamma has shape \(64,\) .*and \d+ more"):
    transfer_weights(weights, narrow)
  for name, value in weight_values(narrow).items():
    np.testing.assert_array_equal(value, before[name])
  empty = ResNetWeights("nothing", 50, 1e-5, {})
  with pytest.raises(UserError, match="has no weight of nothing"):
    transfer_weights(empty, narrow)


@pytest.mark.parametrize(
  "name",
  [
    "none.keras",
    "none.h5",
    "text.keras",
    "text.h5",
  ],
)
def test_missing_and_invalid_files(tmp_path, name):
  file = tmp_path / name
  if name.startswith("text"):
    file.write_text("no model")
  with pytest.raises(UserError) as caught:
    read_keras_application(file)
  assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_invalid_checkpoints(tmp_path):
  for path in (tmp_path, tmp_path / "ckpt"):
    with pytest.raises(UserError, match="no such checkpoint"):
      read_model_garden(str(path))
  (tmp_path / "ckpt.index").write_text("no checkpoint")
  with pytest.raises(UserError, match="cannot be read"):
    read_model_garden(str(tmp_path / "ckpt"))
  with pytest.raises(UserError, match="has no ResNet with model_id=38"):
    read_model_garden(str(tmp_path / "ckpt"), model_id=38)


@both_bindings
def test_models_of_either_keras_version_become_presets_of_both(keras_api, tmp_path):
  _, binding = BINDINGS[keras_api]
  tiny = {"width_multiplier": 0.0625, "num_heads": 2, "kernel_size": 3, "stem": "conv_small"}
  model = binding.SASAResNetClassifier(26, 3, (16, 16, 3), **tiny)
  model.save(tmp_path / "model.keras")
  loaded = read_model(tmp_path / "model.keras")
  assert type(loaded) is type(model)
  loaded.save_to_preset(tmp_path / "preset")
  x = images(16, 16)
  for _, other in BINDINGS.values():
    restored = other.SASAResNetClassifier.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(restored(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(named_weights(restored)) == len(model.weights)


def test_other_keras_files_are_rejected(tmp_path):
  file = tmp_path / "model.keras"
  keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(file)
  with pytest.raises(UserError, match="holds the model Sequential; expected SASAResNet"):
    read_model(file)
  file.write_text("text")
  with pytest.raises(UserError, match=r"is not a [.]keras file"):
    read_model(file)
  with pytest.raises(UserError, match="no such file"):
    read_model(tmp_path / "none.keras")
