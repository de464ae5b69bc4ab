"""Exported classifiers and detectors are verified by their runtimes; spoiled ones fail."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.ops import tracing_for_export
from sasa_tf.serving.modules.detection_module import DetectionModule
from sasa_tf.serving.verification import VerificationError, Verifier, verifier
from sasa_tf.serving.verification.runtime_process import RuntimeOutputs
from tests.serving import small_classifier, small_detector

SIGNATURES = {
  "image_tensor": "serving_default",
  "image_bytes": "image_bytes",
  "tf_example": "tf_example",
}
# (H, W); two of one size, so that they form a batch.
SIZES = ((32, 32), (60, 50), (32, 32), (90, 31))


def write_saved_model(module, path, names):
  servable = tf.Module()
  servable.weights = module.model.variables
  with tracing_for_export():
    functions = module.get_inference_signatures(names)
  tf.saved_model.save(servable, str(path), functions)


@pytest.fixture(scope="module")
def images():
  return small_detector.random_images(SIZES)


@pytest.fixture(scope="module")
def classifier():
  return small_classifier.build_module(small_classifier.params_of(attention_groups=[4]))


@pytest.fixture(scope="module")
def saved(classifier, tmp_path_factory):
  path = tmp_path_factory.mktemp("saved") / "saved_model"
  write_saved_model(classifier, path, SIGNATURES)
  return path


def test_all_signatures_of_a_classifier(classifier, saved, images):
  verification = Verifier(classifier, images).verify("saved_model", saved)
  assert {each.signature for each in verification.comparisons} == {*SIGNATURES.values()}
  for each in verification.comparisons:
    assert each.num_images == each.same_top_classes == len(SIZES)
    assert each.logits_difference < 1e-4 * each.logits_scale
  heading, *lines = verification.lines()
  assert heading == f"saved_model verified with TensorFlow {tf.__version__}, float32:"
  assert len(lines) == 3 and "same top class for 4 of 4 images" in lines[0]


def test_changed_weights_fail(classifier, saved, images):
  """The trained model is not the one that was exported."""
  kernel = classifier.model.trainable_variables[0]
  before = kernel.numpy()
  try:
    kernel.assign(before * 1.05)
    with pytest.raises(VerificationError) as caught:
      Verifier(classifier, images[:2]).verify("saved_model", saved)
  finally:
    kernel.assign(before)
  message = str(caught.value)
  assert "differs from the trained model; image_bytes: probabilities differ by up to " in message
  assert "serving_default: probabilities differ" in message
  assert "The file does not hold these weights" in message
  assert len(message.splitlines()) == 1


def test_corrupt_model_is_reported(classifier, images, tmp_path):
  (tmp_path / "model.tflite").write_bytes(b"no model")
  with pytest.raises(UserError, match=r"LiteRT cannot run model\.tflite: its process ended with"):
    Verifier(classifier, images[:1]).verify("litert", tmp_path / "model.tflite")


def test_images_are_required(classifier):
  with pytest.raises(UserError, match="cannot be verified without images"):
    Verifier(classifier, [])


@pytest.mark.parametrize(
  ("signatures", "outputs", "message"),
  [
    (["predict"], {}, r"has the signatures \['predict'\]; expected some of \['classify'"),
    ([], {}, r"has the signatures \[\]; expected some of"),
    (["image_bytes"], {"probs": (1, 9)}, r"outputs of .* image_bytes are {'probs': \(1, 9\)}; exp"),
  ],
)
def test_foreign_models_fail(classifier, images, monkeypatch, signatures, outputs, message):
  found = {"image_bytes/0": {name: np.zeros(shape) for name, shape in outputs.items()}}
  returned = RuntimeOutputs("TensorFlow 0", frozenset(signatures), found)
  monkeypatch.setattr(verifier, "run_in_fresh_process", lambda *args, **options: returned)
  with pytest.raises(VerificationError, match=message):
    Verifier(classifier, images[:1]).verify("saved_model", "saved_model")


def test_detector_with_a_fixed_batch(images, tmp_path):
  params = small_detector.params_of()
  _, model = small_detector.build(params)
  size = [small_detector.SIZE] * 2
  module = DetectionModule(params, batch_size=3, input_image_size=size, model=model)
  write_saved_model(module, tmp_path / "saved_model", {"image_bytes": "serving_default"})
  encoded = [tf.io.encode_png(image).numpy() for image in images]
  verification = Verifier(module, encoded, batch_size=3, input_type="image_bytes").verify(
    "saved_model", tmp_path / "saved_model"
  )
  (found,) = verification.comparisons
  assert found.signature == "serving_default"
  assert found.num_trained == found.num_exported == found.num_matched > 100
  assert found.average_precision == pytest.approx(1)
  assert found.score_difference < 1e-5 and found.relative_box_difference < 1e-5


def test_prepared_images_are_those_of_the_evaluation(classifier, images):
  """The float input of LiteRT and other formats, before the normalization."""
  ((_, prepared),) = Verifier(classifier, images).trained.inputs("prepared")
  assert prepared.shape == (4, 32, 32, 3) and prepared.dtype == np.float32
  np.testing.assert_allclose(prepared[0], images[0], atol=1e-3)
