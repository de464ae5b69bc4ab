"""Presets of models that Model Garden trained: written, found, run."""

import json

import numpy as np
import pytest
import tensorflow as tf

import sasa_tf.keras
from sasa_tf.errors import UserError
from sasa_tf.modeling.presets import find_preset
from sasa_tf.serving.clients.client import predict_all
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.export import export_model
from sasa_tf.serving.restored_module import restored_module
from sasa_tf.training.experiment import load_preset_experiment
from tests.serving.checkpoints import save_checkpoint
from tests.serving.small_detector import NAMES, SIZE, build, params_of, random_images
from tests.training import tiny_run

DIGITS = tuple(f"digit {label}" for label in range(10))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
  """Returns the directory of a preset, and the export module of the trained model."""
  from official.core import task_factory

  folder = tmp_path_factory.mktemp("classifier")
  params = tiny_run.params(
    "unused",
    **{"task.model.dropout_rate": 0.2, "task.model.norm_activation.norm_epsilon": 0.01},
  )
  checkpoint = save_checkpoint(task_factory.get_task(params.task).build_model(), folder / "ckpt")
  outputs = {"preset": folder / "preset"}
  (export,) = export_model(params, weights=checkpoint, class_names=DIGITS, outputs=outputs)
  assert export.summary.endswith("weights, rounded by at most 0")
  export_model(params, weights=checkpoint, class_names=DIGITS, outputs=outputs, overwrite=True)
  return folder / "preset", restored_module(params, checkpoint)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
  """Returns the directory of a preset, and the export module of the trained model."""
  folder = tmp_path_factory.mktemp("detector")
  params = params_of()
  _, model = build(params)
  checkpoint = tf.train.Checkpoint(model=model).write(str(folder / "ckpt"))
  outputs = {"preset": folder / "preset"}
  export_model(params, weights=checkpoint, class_names=NAMES, outputs=outputs)
  return folder / "preset", restored_module(params, checkpoint)


def _restored(path):
  preset = find_preset(path)
  return restored_module(load_preset_experiment(preset, mode="export"), preset)


def _assert_equal(received, expected):
  assert received.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(received[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_classifier(classifier):
  path, trained = classifier
  images = tf.constant(np.stack(random_images([(12, 16)] * 3)))
  _assert_equal(_restored(path).serve(images), trained.serve(images))
  model = sasa_tf.keras.SASAResNetClassifier.from_preset(path)
  prepared = tf.constant(np.stack(random_images([(8, 8)] * 3)))
  np.testing.assert_allclose(
    model(model.preprocess(prepared)), trained.serve(prepared)["logits"], rtol=1e-4, atol=1e-4
  )
  assert find_preset(path).labels == DIGITS


def test_detector(detector):
  path, trained = detector
  images = tf.constant(np.stack(random_images([(SIZE, SIZE // 2)] * 2)))
  expected = trained.serve(images)
  assert expected["num_detections"][0] > 3
  _assert_equal(_restored(path).serve(images), expected)
  assert find_preset(path).preprocessing["keep_aspect_ratio"]


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_predict(kind, request, tmp_path):
  path, trained = request.getfixturevalue(kind)
  image = random_images([(SIZE, SIZE)])[0]
  file = tmp_path / "image.png"
  file.write_bytes(tf.io.encode_png(image).numpy())
  model = EncodedImageModel.from_module(
    f"--preset={path}", _restored(path), find_preset(path).labels
  )
  is_detector = kind == "detector"
  lines = list(predict_all(model, [str(file)], **({"score_threshold": 0.0} if is_detector else {})))
  outputs = trained.serve(image[None])
  names = NAMES if is_detector else DIGITS
  best = outputs["detection_classes"][0, 0] if is_detector else np.argmax(outputs["probs"][0])
  assert names[best] in lines[2 if is_detector else 1]
  with pytest.raises(UserError, match=r"--preset=.* is a (classifier: --score|detector: --top_k)"):
    list(predict_all(model, [str(file)], top_k=1, score_threshold=None if is_detector else 0.5))


def test_half_precision(classifier, tmp_path):
  path, _ = classifier
  preset = find_preset(path)
  (export,) = export_model(
    load_preset_experiment(preset, mode="export"),
    weights=preset,
    class_names=preset.labels,
    outputs={"preset": tmp_path / "half"},
    quantize="float16",
  )
  assert "rounded by at most" in export.summary
  values, full = find_preset(tmp_path / "half").read_weights(), preset.read_weights()
  for name, value in values.items():
    assert value.dtype == np.float16
    np.testing.assert_allclose(value, full[name], rtol=1e-3, atol=1e-7)


def _changed(path, folder, change):
  """Copies a preset with a changed configuration."""
  folder.mkdir()
  for file in path.iterdir():
    (folder / file.name).write_bytes(file.read_bytes())
  content = json.loads((path / "config.json").read_text())
  change(content)
  (folder / "config.json").write_text(json.dumps(content))
  return folder


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.update(class_name="SASAResNet"), "of the class SASAResNet; expected"),
    (lambda c: c["config"].update(pooling="max"), "pooling='max'; programs expect 'avg'"),
    (lambda c: c["config"].update(depth=3), "does not know: depth"),
    (lambda c: c["config"].update(kernel_size=-1), "kernel_size"),
    (lambda c: c["config"].update(model_id="big"), r"model_id"),
    (lambda c: c["preprocessing"].update(image_size=[None, 8]), "no fixed image_size"),
    (lambda c: c["config"].update(input_shape=5), r"input_shape=5; expected \[height, width"),
    (lambda c: c["config"].update(input_shape=[8, 8, None]), "input_size"),
    (lambda c: c["preprocessing"].update(image_size=["a", "b"]), "input_size"),
    (lambda c: c["preprocessing"].update(crop_fraction="all"), "center_crop_fraction"),
    (lambda c: c["config"].update(num_classes=7), r"weights do not fit"),
  ],
)
def test_invalid_presets(classifier, tmp_path, change, message):
  path = _changed(classifier[0], tmp_path / "changed", change)
  with pytest.raises(UserError, match=message):
    _restored(path)
