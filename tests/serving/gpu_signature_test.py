"""The signature `gpu`, with other operations in the place of the kernels, which need a GPU."""

import gc
import json
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.native import portable
from sasa_tf.ops.blocked import local_attention as blocked
from sasa_tf.ops.portable import portable_attention
from sasa_tf.ops.qkv_packing import split_and_attend
from sasa_tf.serving import gpu_signature
from sasa_tf.serving.formats import saved_model
from sasa_tf.serving.formats.format import ExportOptions, SavedModelOptions
from sasa_tf.serving.model_description import describe_model
from sasa_tf.serving.modules.detection_module import DetectionModule
from tests.serving import small_classifier, small_detector


@pytest.fixture
def no_kernels(monkeypatch):
  """Replaces the kernels by operations that run everywhere."""
  attend = split_and_attend(blocked.local_attention, recomputes=False)

  def packed(*arguments, kernel_format, **settings):
    assert kernel_format == "ptx"
    return attend(*arguments, **settings)

  monkeypatch.setattr(portable_attention, "local_attention_packed", packed)
  monkeypatch.setattr(portable, "find_nvcc", lambda: "nvcc")


def export(module, path, names, **options):
  """Writes a SavedModel without the other signatures, and returns the reported lines."""
  lines = []
  path.mkdir()
  settings = SavedModelOptions(report=lines.append, **options)
  with mock.patch.object(type(module), "get_inference_signatures", lambda *arguments: {}):
    saved_model.write(module, path, ExportOptions(describe_model(module, names), settings))
  return lines


def collected(function):
  """Returns the function, called after a garbage collection."""

  def call(*arguments):
    gc.collect()
    return function(*arguments)

  return call


def images_of(size):
  images = np.random.default_rng(1).uniform(0, 255, [2, size, size, 3])
  return tf.constant(images, tf.float32)


def classifier(precision=None):
  params = small_classifier.params_of(attention_groups=[4])
  params.runtime.mixed_precision_dtype = precision
  return small_classifier.build_module(params)


def test_classifier_in_float32(no_kernels):
  module = classifier()
  images = images_of(small_classifier.SIZE)
  found = gpu_signature.gpu_signature(module, "ptx").function(images)
  for name, values in module.serve_prepared(images).items():
    np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)


def test_saved_classifier_in_bfloat16_shares_the_weights(no_kernels, tmp_path, monkeypatch):
  module = classifier("bfloat16")
  path = tmp_path / "model"
  monkeypatch.setattr(saved_model, "save", collected(saved_model.save))
  (line,) = export(module, path, small_classifier.NAMES, gpu_kernels="ptx")
  assert line.startswith("signature 'gpu': 1 of 1 attention layers have ptx kernels, bfloat16; ")
  exported = tf.saved_model.load(str(path))
  assert len(exported.weights) == len(module.model.variables)
  images = images_of(small_classifier.SIZE)
  found = exported.signatures["gpu"](images=images)
  for name, values in module.serve_prepared(images).items():
    assert found[name].dtype == tf.float32
    np.testing.assert_allclose(found[name], values, atol=5e-2 * np.abs(values).max())
  record = json.loads((path / saved_model.METADATA).read_text())
  assert record["gpu"]["attention_layers_with_kernels"] == 1
  assert record["gpu"]["dtype"] == "bfloat16"


def detector(precision=None):
  """Returns a detector with detections, and an image for it."""
  params = small_detector.params_of()
  _, model = small_detector.build(params)
  params.runtime.mixed_precision_dtype = precision
  size = small_detector.SIZE
  module = DetectionModule(params, batch_size=None, input_image_size=[size, size])
  module.model.set_weights(model.get_weights())
  return module, tf.cast(small_detector.random_images([(size, size)]), tf.float32)


def test_detector(no_kernels):
  module, images = detector()
  found = gpu_signature.gpu_signature(module, "ptx").function(images)
  expected = module.serve_prepared(images)
  assert expected["num_detections"][0] > 0
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(portable.find_nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_kernels_on_a_gpu(precision):
  """The kernels of this TensorFlow, against the module's own operations."""
  kernel_format, _ = gpu_signature.choose_kernels("auto")
  module = classifier(precision)
  images = images_of(small_classifier.SIZE)
  found = gpu_signature.gpu_signature(module, kernel_format).function(images)
  # Convolutions in float32 have TF32 products, in another order in each program.
  tolerance = 5e-2 if precision else 5e-3
  for name, values in module.serve_prepared(images).items():
    np.testing.assert_allclose(found[name], values, atol=tolerance * np.abs(values).max())

  module, images = detector(precision)
  found = gpu_signature.gpu_signature(module, kernel_format).function(images)
  expected = module.serve_prepared(images)
  assert expected["num_detections"][0] > 0
  np.testing.assert_allclose(
    found["detection_scores"], expected["detection_scores"], atol=tolerance
  )
  if precision is None:
    _assert_same_boxes(found, expected)


def _assert_same_boxes(found, expected):
  """Compares the boxes of an image; those of nearly equal scores may change places."""
  number = int(expected["num_detections"][0])
  boxes = np.asarray(found["detection_boxes"][0, :number])
  remaining = list(range(number))
  for box, score in zip(
    expected["detection_boxes"][0, :number].numpy(),
    expected["detection_scores"][0, :number].numpy(),
    strict=True,
  ):
    nearest = min(remaining, key=lambda index: np.abs(boxes[index] - box).max())
    np.testing.assert_allclose(boxes[nearest], box, rtol=1e-2, atol=0.1)
    assert abs(float(found["detection_scores"][0, nearest]) - score) < 5e-3
    remaining.remove(nearest)


def test_no_signature_without_kernels(tmp_path, monkeypatch):
  monkeypatch.setattr(portable, "find_nvcc", lambda: None)
  module = classifier()
  assert export(module, tmp_path / "none", small_classifier.NAMES) == []
  lines = export(module, tmp_path / "auto", small_classifier.NAMES, gpu_kernels="auto")
  assert lines == ["no signature 'gpu': nvcc, which compiles them, was not found"]
  assert "gpu" not in tf.saved_model.load(str(tmp_path / "auto")).signatures


def test_choice_of_the_kernels(monkeypatch):
  monkeypatch.setattr(portable, "find_nvcc", lambda: "nvcc")
  assert gpu_signature.choose_kernels("none")[0] is None
  assert gpu_signature.choose_kernels("ptx")[0] == "ptx"
  for version, chosen in (("2.20.0", "triton"), ("2.21.0-rc0", "ptx"), ("3.1.2", "ptx")):
    monkeypatch.setattr(tf, "__version__", version)
    assert gpu_signature.choose_kernels("auto")[0] == chosen
  monkeypatch.setattr(portable, "find_nvcc", lambda: None)
  with pytest.raises(UserError, match="nvcc was not found"):
    gpu_signature.choose_kernels("triton")


def test_model_without_attention(no_kernels, tmp_path):
  module = small_classifier.build_module(small_classifier.params_of(attention_groups=[]))
  with pytest.raises(UserError, match="the model has no local attention"):
    export(module, tmp_path / "ptx", small_classifier.NAMES, gpu_kernels="ptx")
  (line,) = export(module, tmp_path / "auto", small_classifier.NAMES, gpu_kernels="auto")
  assert line.startswith("no signature 'gpu': no attention layer of this model can have")
  options = {"gpu_kernels": "ptx", "require_gpu_kernels": False}
  (line,) = export(module, tmp_path / "baseline", small_classifier.NAMES, **options)
  assert line.startswith("signature 'gpu': 0 of 0 attention layers have ptx kernels")
