"""The Keras format: a Keras 3 model that returns what the trained tf_keras model returns."""

import io
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import sasa_tf.keras
from sasa_tf.errors import UserError
from sasa_tf.serving.export import export_model
from sasa_tf.serving.modules.normalization import normalize
from sasa_tf.serving.restored_module import restored_module
from tests.serving.checkpoints import save_checkpoint
from tests.serving.small_detector import NAMES, SIZE, build, params_of
from tests.training import tiny_run

DIGITS = tuple(f"digit {label}" for label in range(10))


def assert_close(received, expected):
  scale = np.abs(expected).max()
  assert 1e-3 < scale < 1e4
  np.testing.assert_allclose(received, expected, atol=1e-5 * scale)


def test_classifier(tmp_path):
  from official.core import task_factory

  params = tiny_run.params("unused", **{"task.model.dropout_rate": 0.2})
  checkpoint = save_checkpoint(task_factory.get_task(params.task).build_model(), tmp_path / "ckpt")
  file = tmp_path / "model.keras"
  arguments = {"weights": checkpoint, "class_names": DIGITS, "outputs": {"keras": file}}
  export_model(params, **arguments)
  assert sorted(path.name for path in tmp_path.iterdir() if "ckpt" not in path.name) == [file.name]
  export_model(params, **arguments, overwrite=True)  # it recognizes what it wrote

  model = keras.models.load_model(file)
  assert type(model) is sasa_tf.keras.SASAResNetClassifier
  images = np.random.default_rng(1).uniform(0, 255, [3, 8, 8, 3]).astype(np.float32)
  expected = restored_module(params, checkpoint).serve_prepared(tf.constant(images))
  received = model.predict(model.preprocess(images), verbose=0)
  assert_close(received, expected["logits"])
  with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
    assert tuple(archive.read("labels.txt").decode().splitlines()) == DIGITS
    metadata = json.loads(archive.read("model_metadata.json"))
  assert metadata["task"] == "classification" and metadata["labels"] == [*DIGITS]
  assert metadata["preprocessing"]["image_size"] == [8, 8]


def test_detector(tmp_path):
  params = params_of()
  _, model = build(params)
  checkpoint = save_checkpoint(model, tmp_path / "ckpt")
  file = tmp_path / "model.keras"
  export_model(params, weights=checkpoint, class_names=NAMES, outputs={"keras": file})
  images = np.random.default_rng(1).uniform(0, 255, [2, SIZE, SIZE, 3]).astype(np.float32)
  inputs = normalize(images)
  expected = model.head.head(model.decoder(model.backbone(inputs)))
  received = keras.models.load_model(file)(inputs)
  for ours, theirs in zip(received, expected, strict=True):
    assert set(ours) == set(theirs)
    for level in theirs:
      assert_close(ours[level], theirs[level])


@pytest.mark.parametrize("name", ["keras", "preset"])
def test_parts_of_other_libraries_are_named(name, tmp_path):
  params = params_of(decoder={"type": "fpn"})
  _, model = build(params)
  checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
  message = rf"--format={name} .*hold for task\.model\.decoder\.type='fpn' \(expected"
  with pytest.raises(UserError, match=message):
    export_model(params, weights=checkpoint, class_names=None, outputs={name: tmp_path / "a"})
  assert not (tmp_path / "a").exists()
