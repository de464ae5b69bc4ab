"""Every private API of Model Garden still does what `sasa_tf.compat.model_garden` says."""

import json

import numpy as np
import pytest
import tensorflow as tf
from official.core import config_definitions, exp_factory, input_reader
from official.vision.dataloaders import classification_input
from official.vision.serving import export_base

from sasa_tf.compat import model_garden


def test_registered_experiments():
  @exp_factory.register_config_factory("an_experiment_of_this_test")
  def create():
    return config_definitions.ExperimentConfig()

  names = model_garden.registered_experiments()
  assert "an_experiment_of_this_test" in names
  assert names == sorted(names)


class Evaluator(model_garden.HookedCOCOEvaluator):
  def per_category_metrics(self, coco_eval, prefix=""):
    return {f"{prefix}categories": np.float32(len(coco_eval.params.catIds))}


def add_image(evaluator, image_id):
  """Adds an image with one box and a perfect detection."""
  box = np.array([[[0.0, 0.0, 8.0, 8.0]]], np.float32)
  groundtruths = {
    "source_id": np.array([image_id]),
    "height": np.array([16]),
    "width": np.array([16]),
    "num_detections": np.array([[1]]),  # a vector for each image, as the parser yields it
    "boxes": box,
    "classes": np.array([[1]]),
    "is_crowds": np.array([[0]]),
    "areas": np.array([[64.0]]),
  }
  predictions = {
    "detection_boxes": box,
    "detection_scores": np.array([[0.9]], np.float32),
    "detection_classes": np.array([[1]]),
    "num_detections": np.array([1]),
    "source_id": np.array([image_id]),
    "image_info": np.array([[[16.0, 16.0], [16.0, 16.0], [1.0, 1.0], [0.0, 0.0]]], np.float32),
  }
  evaluator.update_state(*tf.nest.map_structure(tf.constant, (groundtruths, predictions)))


def test_evaluator_hooks():
  evaluator = Evaluator(annotation_file=None, include_mask=False, per_category_metrics=True)
  assert evaluator.annotation_file is None
  assert evaluator.annotated_image_ids() is None
  for image_id in (7, 9):
    add_image(evaluator, image_id)
  assert evaluator.evaluated_image_ids() == {7, 9}
  metrics = evaluator.result()
  assert metrics["AP"] == pytest.approx(1)
  assert metrics["categories"] == 1


def test_annotated_image_ids(tmp_path):
  file = tmp_path / "annotations.json"
  file.write_text(
    json.dumps(
      {
        "images": [{"id": 3, "height": 16, "width": 16}],
        "categories": [{"id": 1, "name": "ant"}],
        "annotations": [],
      }
    )
  )
  evaluator = model_garden.HookedCOCOEvaluator(annotation_file=str(file), include_mask=False)
  assert evaluator.annotation_file == str(file)
  assert evaluator.annotated_image_ids() == {3}


def test_export_module_is_rebuilt_with_a_new_model():
  class Model(tf.Module):
    def __call__(self, images, training):
      return images

  class Module(export_base.ExportModule):
    def _build_model(self):
      return Model()

    def serve(self, images):
      return images

  module = Module({"a": 1}, batch_size=2, input_image_size=[3, 4], input_type="tf_example")
  twin = model_garden.rebuild_export_module(module)
  assert type(twin) is Module
  assert twin.model is not module.model
  for name in ("params", "_batch_size", "_input_image_size", "_input_type"):
    assert getattr(twin, name) == getattr(module, name), name


def test_replaced_normalization():
  parser = classification_input.Parser([4, 4], 10)
  image = tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8))
  example = {"image/encoded": image, "image/class/label": tf.constant(1)}
  with model_garden.replaced_normalization(lambda image, offset, scale: image + 42.0):
    replaced = [parser.parse_fn(is_training)(example)[0] for is_training in (True, False)]
  np.testing.assert_array_equal(replaced, np.full([2, 4, 4, 3], 42.0))
  stock, _ = parser.parse_fn(False)(example)
  assert np.all(stock < 0)


def test_uncompressed_data_service(monkeypatch):
  calls, service = [], tf.data.experimental.service

  def distribute(**options):
    calls.append(options)
    return lambda dataset: dataset

  monkeypatch.setattr(service, "distribute", distribute)
  data = config_definitions.DataConfig(
    enable_tf_data_service=True, tf_data_service_address="grpc://host:5050", input_path="file"
  )
  reader = input_reader.InputReader(data)
  with model_garden.uncompressed_data_service():
    reader._maybe_apply_data_service(tf.data.Dataset.range(1), tf.distribute.InputContext())
  assert calls[0]["compression"] is None and service.distribute is distribute
