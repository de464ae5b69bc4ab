"""Exports to other runtimes: classifiers and detectors equal the trained model in each of them."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving.formats import onnx
from sasa_tf.serving.formats.format import ExportOptions
from sasa_tf.serving.formats.onnx_quantization import store_weights_in_float16
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.metadata import ModelMetadata
from sasa_tf.serving.modules import image_loop
from sasa_tf.serving.modules.detection_module import DetectionModule
from sasa_tf.serving.verification import Verifier
from tests.serving import small_classifier, small_detector
from tests.serving.formats.exports import export, requires_runtime

NAMES = ("onnx", "openvino", "tfjs")


@pytest.fixture(scope="module")
def classifier_verifier(classifier, images):
  return Verifier(classifier, images)


@pytest.fixture(scope="module")
def detector():
  params = small_detector.params_of()
  _, model = small_detector.build(params)
  size = [small_detector.SIZE] * 2
  return DetectionModule(params, batch_size=None, input_image_size=size, model=model)


@pytest.fixture(scope="module")
def detector_verifier(detector, images):
  return Verifier(detector, images)


@pytest.mark.parametrize("name", NAMES)
def test_classifier(name, exported_classifier, classifier_verifier):
  path = exported_classifier(name)
  (found,) = classifier_verifier.verify(name, path).comparisons
  assert found.signature == "prepared"
  assert found.num_images == found.same_top_classes == 3
  assert found.logits_scale > 1  # the model is not constant
  assert found.logits_difference < 1e-5 * found.logits_scale and found.probs_difference < 1e-5
  is_own = (
    FORMATS[name].layout.mismatch(path) is None if path.is_dir() else FORMATS[name].is_own(path)
  )
  assert is_own  # --overwrite replaces it


def test_openvino_has_a_fixed_batch(tmp_path):
  params = small_classifier.params_of(attention_groups=[4])
  path = export("openvino", small_classifier.build_module(params, batch_size=2), None, tmp_path)
  import openvino

  model = openvino.Core().read_model(path / "model.xml")
  size = small_classifier.SIZE
  assert list(model.input().shape) == [2, size, size, 3]
  assert list(model.output("probs").shape) == [2, 10]


def test_openvino_runs_large_images_one_by_one(
  classifier, classifier_verifier, exported_classifier, tmp_path, monkeypatch
):
  """A batch of them then needs the memory of one image."""
  assert classifier.images_at_once(with_kernels=False) > 1  # of the small images of these tests
  assert "TensorIterator" not in _operations(exported_classifier("openvino"))
  monkeypatch.setattr(image_loop, "_CPU_PIXELS", small_classifier.SIZE**2)
  assert classifier.images_at_once(with_kernels=False) == 1
  path = export("openvino", classifier, None, tmp_path, quantize="float16")
  (found,) = classifier_verifier.verify("openvino", path, "float16").comparisons
  assert found.num_images == 3 and found.logits_difference < 1e-2 * found.logits_scale
  whole = exported_classifier("openvino") / "model.bin"
  assert (path / "model.bin").stat().st_size < 0.6 * whole.stat().st_size
  body = _operations(path)["TensorIterator"].get_function()
  outputs = [output for node in body.get_ops() for output in node.outputs()]
  assert not any(output.partial_shape.is_dynamic for output in outputs)
  convolutions = small_classifier.build_module(small_classifier.params_of(attention_groups=[]))
  assert convolutions.images_at_once(with_kernels=False) is None  # they need little memory


def _operations(path):
  import openvino

  model = openvino.Core().read_model(path / "model.xml")
  return {node.get_type_name(): node for node in model.get_ops()}


@pytest.mark.parametrize("name", NAMES)
def test_detector(name, detector, detector_verifier, tmp_path, monkeypatch):
  # As for large images. A detector has unknown sizes, so OpenVINO computes all images at once.
  monkeypatch.setattr(image_loop, "_CPU_PIXELS", small_detector.SIZE**2)
  path = export(name, detector, small_detector.NAMES, tmp_path)
  (found,) = detector_verifier.verify(name, path).comparisons
  assert found.num_trained == found.num_exported == found.num_matched > 100
  assert found.score_difference < 1e-5 and found.relative_box_difference < 1e-5
  assert found.average_precision == pytest.approx(1)


def test_onnx_files_describe_themselves(exported_classifier):
  path = exported_classifier("onnx")
  import onnx as onnx_package

  model = onnx_package.load(path)
  assert [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")] == [17]
  properties = {each.key: each.value for each in model.metadata_props}
  assert json.loads(properties["labels"]) == [*small_classifier.NAMES]
  assert json.loads(properties["preprocessing"])["image_size"] == [small_classifier.SIZE] * 2
  shapes = {
    value.name: [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
    for value in (*model.graph.input, *model.graph.output)
  }
  assert shapes == {
    "images": ["batch", 32, 32, 3],
    "logits": ["batch", 10],
    "probs": ["batch", 10],
  }


def test_openvino_models_describe_themselves(classifier, exported_classifier):
  path = exported_classifier("openvino")
  import openvino

  model = openvino.Core().read_model(path / "model.xml")
  labels = model.get_rt_info(["model_info", "labels"]).astype(str)
  assert json.loads(labels) == [*small_classifier.NAMES]
  assert json.loads((path / "model_metadata.json").read_text())["task"] == "classification"
  # In float32, without the normalizations that are merged with convolutions.
  assert (path / "model.bin").stat().st_size > 3 * classifier.model.count_params()


def test_onnx_weights_in_float16(classifier_verifier, exported_classifier, tmp_path):
  path = exported_classifier("onnx")
  import onnx as onnx_package

  model = onnx_package.load(path)
  store_weights_in_float16(model)
  onnx_package.checker.check_model(model)
  half = tmp_path / "model.onnx"
  half.write_bytes(model.SerializeToString())
  assert half.stat().st_size < 0.6 * path.stat().st_size
  (found,) = classifier_verifier.verify("onnx", half, "float16").comparisons
  assert 0 < found.logits_difference < 1e-2 * found.logits_scale


def test_openvino_weights_in_float16(
  classifier, classifier_verifier, exported_classifier, tmp_path
):
  path = export("openvino", classifier, None, tmp_path, quantize="float16")
  (found,) = classifier_verifier.verify("openvino", path, "float16").comparisons
  assert 0 < found.logits_difference < 1e-2 * found.logits_scale
  whole = exported_classifier("openvino") / "model.bin"
  assert (path / "model.bin").stat().st_size < 0.6 * whole.stat().st_size


def test_onnx_in_int8(classifier, classifier_verifier, tmp_path):
  ((_, images),) = classifier_verifier.trained.inputs("prepared")
  path = export("onnx", classifier, None, tmp_path, quantize="int8", calibration_images=images)
  assert FORMATS["onnx"].is_own(path)
  import onnx as onnx_package
  import onnxruntime

  session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
  (logits,) = session.run(["logits"], {"images": images})
  expected = classifier_verifier.trained.outputs("prepared")["logits"]
  # The logits of random weights are small differences of large numbers.
  assert 0.9 < np.corrcoef(logits.ravel(), expected.ravel())[0, 1] < 0.99999
  model = onnx_package.load(path)
  operations = {node.op_type for node in model.graph.node}
  assert {"QuantizeLinear", "DequantizeLinear", "Softmax"} <= operations
  assert path.stat().st_size < 0.5 * 4 * classifier.model.count_params()
  with pytest.raises(UserError, match="--quantize=int8 needs images of the data for calibration"):
    onnx.convert(classifier, 17, "int8")
  with pytest.raises(UserError, match="--onnx_opset=12 is not supported with --quantize=int8: exp"):
    onnx.check_opset(12, "int8")


@pytest.mark.parametrize("opset", [10, 19])
def test_unsupported_opset(opset):
  with pytest.raises(UserError, match=f"--onnx_opset={opset} is not supported: expected 11 to 18"):
    onnx.check_opset(opset)


@pytest.mark.parametrize("name", NAMES)
def test_operations_without_an_equivalent_are_named(name, tmp_path):
  """Such as the compiled kernels of --params_override=...implementation=fused."""
  requires_runtime(name)

  class Module(tf.Module):
    batch_size, prepared_size = None, (4, 4)

    def __init__(self):
      super().__init__()
      self.model = tf.Module()
      self.model.variables = ()

    def serve_prepared(self, images):
      return {"probs": tf.numpy_function(np.abs, [images], tf.float32)}

  path = tmp_path / FORMATS[name].file_name
  if FORMATS[name].is_directory:
    path.mkdir()
  root = logging.root
  before = root.level, list(root.filters), list(root.handlers)
  with pytest.raises(UserError, match=r"cannot be converted to .*PyFunc.* must be 'auto' or "):
    FORMATS[name].write(
      Module(), path, ExportOptions(ModelMetadata("classification", None, {}, {}))
    )
  assert (root.level, root.filters, root.handlers) == before


def test_keras_classifier(exported_classifier, classifier_verifier):
  verification = classifier_verifier.verify("keras", exported_classifier("keras"))
  (found,) = verification.comparisons
  assert verification.runtime.startswith("Keras 3.")
  assert found.signature == "normalized" and found.num_images == 3
  assert found.scale > 1 and found.difference < 1e-5 * found.scale
