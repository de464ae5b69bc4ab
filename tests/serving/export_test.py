"""Exports are verified, quantized and described; a failing one leaves nothing behind."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving.example_images import ExampleImages, noise_images
from sasa_tf.serving.export import export_model
from sasa_tf.serving.formats import litert
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.verification import VerificationError
from tests.serving import small_classifier
from tests.serving.small_classifier import NAMES, SIZE


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns experiment, checkpoint and the module of a classifier."""
  params = small_classifier.params_of(attention_groups=[4], width_multiplier=0.125, num_heads=4)
  module = small_classifier.build_module(params)
  path = tmp_path_factory.mktemp("trained") / "ckpt"
  return params, tf.train.Checkpoint(model=module.model).write(str(path)), module


@pytest.fixture(scope="module")
def images(trained):
  """Returns noise, with the labels that the trained classifier gives to it."""
  encoded = noise_images([SIZE, SIZE], 12)
  predict = trained[2].get_inference_signatures({"image_bytes": "predict"})["predict"]
  probs = predict(tf.constant(encoded))["probs"].numpy()
  return ExampleImages(
    verification=encoded,
    source="12 images of noise",
    calibration=encoded,
    evaluation=encoded,
    labels=probs.argmax(axis=1).tolist(),
  )


@pytest.fixture(scope="module")
def quantized(trained, images, tmp_path_factory):
  """Returns the directory and the records of exports to LiteRT, by precision."""
  params, checkpoint, _ = trained
  folder = tmp_path_factory.mktemp("quantized")
  return folder, {
    precision: export_model(
      params,
      weights=checkpoint,
      outputs={"litert": folder / f"{precision}.tflite"},
      class_names=NAMES,
      quantize=precision,
      images=images,
      model_card=folder / "model_card.md",
    )[0]
    for precision in ("none", "float16", "int8")
  }


def test_quantized_files_are_smaller_and_nearly_as_accurate(quantized):
  folder, exported = quantized
  sizes = {name: (folder / f"{name}.tflite").stat().st_size for name in exported}
  assert sizes == {name: each.num_bytes for name, each in exported.items()}
  assert sizes["float16"] < 0.6 * sizes["none"] and sizes["int8"] < 0.5 * sizes["none"]
  assert exported["none"].accuracy == ""
  assert exported["float16"].accuracy == "accuracy 100.0% -> 100.0% on 12 images"
  before, after = exported["int8"].accuracy.split(" on ")[0].split()[1::2]
  assert before == "100.0%" and float(after.rstrip("%")) > 80
  assert exported["none"].summary.endswith("12/12 top classes")
  assert exported["int8"].verification[0].endswith(", int8:")


def test_int8_computes_in_integers(quantized):
  interpreter = tf.lite.Interpreter(str(quantized[0] / "int8.tflite"))
  tensors = interpreter.get_tensor_details()
  floats = [each["name"] for each in tensors if each["dtype"] == np.float32 and each["name"]]
  # Only the input and the outputs.
  assert len(floats) <= 3 < 50 < len(tensors)


def test_files_hold_class_names_and_preprocessing(quantized):
  with zipfile.ZipFile(quantized[0] / "none.tflite") as archive:
    assert archive.read("labels.txt").decode().splitlines() == [*NAMES]
    metadata = json.loads(archive.read("model_metadata.json"))
  assert metadata["labels"] == [*NAMES] and metadata["task"] == "classification"
  assert metadata["preprocessing"]["image_size"] == [SIZE, SIZE]
  assert metadata["preprocessing"]["value_range"] == [0, 255]


def test_model_card_describes_the_model_and_its_exports(quantized, trained):
  text = (quantized[0] / "model_card.md").read_text()
  assert text.startswith("---\nlibrary_name: sasa_tf\npipeline_tag: image-classification\n")
  parameters = sum(w.shape.num_elements() for w in trained[2].model.trainable_weights)
  for expected in (
    f"* parameters: {parameters:,}",
    f"* input: {SIZE} x {SIZE} pixels, RGB",
    "* classes: 10: class 0, class 1",
    "`int8.tflite`",
    "on 12 images of noise",
    "accuracy 100.0% -> ",
    "* `probs`: float32 [B, classes]",
    '"num_heads": 4',
    "int8: the ranges were calibrated",
  ):
    assert expected in text, expected
  assert text.count("LiteRT (TensorFlow Lite) file") == 1  # the last export replaced the earlier


def test_earlier_exports_stay_in_the_card_while_they_exist(quantized, trained, images, tmp_path):
  params, checkpoint, _ = trained
  card = tmp_path / "model_card.md"
  card.write_bytes((quantized[0] / "model_card.md").read_bytes())
  arguments = {"weights": checkpoint, "class_names": None, "model_card": card}
  export_model(params, outputs={"keras": tmp_path / "model.keras"}, **arguments)
  assert "int8.tflite" not in card.read_text()
  card.write_bytes((quantized[0] / "model_card.md").read_bytes())
  (tmp_path / "int8.tflite").write_bytes(b"x")
  export_model(params, outputs={"keras": tmp_path / "model.keras"}, overwrite=True, **arguments)
  text = card.read_text()
  assert "`int8.tflite`" in text and "`model.keras`" in text and "10, without names" in text


def test_failing_verification_leaves_nothing(trained, images, tmp_path, monkeypatch):
  params, checkpoint, module = trained

  def write(other, path, options):
    del other
    before = module.model.trainable_variables[-1].numpy()
    module.model.trainable_variables[-1].assign(before + np.arange(10))
    path.write_bytes(litert.convert(module))
    module.model.trainable_variables[-1].assign(before)

  monkeypatch.setitem(FORMATS, "litert", dataclasses.replace(litert.FORMAT, write=write))
  with pytest.raises(VerificationError, match="differs from the trained model"):
    export_model(
      params,
      weights=checkpoint,
      outputs={"keras": tmp_path / "model.keras", "litert": tmp_path / "model.tflite"},
      class_names=NAMES,
      images=images,
      model_card=tmp_path / "model_card.md",
    )
  assert list(tmp_path.iterdir()) == []


def test_weights_of_another_model_are_named_without_warnings(trained, tmp_path, caplog):
  _, checkpoint, _ = trained
  other = small_classifier.params_of(attention_groups=[4], width_multiplier=0.25, num_heads=4)
  with pytest.raises(UserError, match=r"does not hold the weights.* in the checkpoint, .* here; "):
    export_model(other, weights=checkpoint, outputs={"keras": tmp_path / "a"}, class_names=None)
  assert not caplog.records
