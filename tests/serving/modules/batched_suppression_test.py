"""The batched suppression of exported detectors has the results of Model Garden's v1 and v2."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.serving.modules.batched_suppression import batched_suppression, replaces
from tests.serving.modules.suppression_cases import (
  ANCHORS,
  CLASSES,
  assert_same,
  model_garden_nms,
  random_boxes,
  settings,
)

VERSIONS = ("v1", "v2")


def assert_equal(boxes, logits, generator):
  """Compares the detections of a batch, and returns them."""
  assert replaces(generator)
  expected = model_garden_nms(boxes, logits, generator)
  found = tf.function(lambda b, s: batched_suppression(b, s, generator))(boxes, tf.sigmoid(logits))
  assert_same(found, expected)
  return expected


def batch_of(cases):
  return [np.stack(values) for values in zip(*cases, strict=True)]


@pytest.mark.parametrize("version", VERSIONS)
def test_random_boxes(version):
  boxes, logits = batch_of(random_boxes(seed) for seed in range(3))
  found = assert_equal(boxes, logits, settings(nms_version=version, max_num_detections=200))
  assert (found["num_detections"] > 100).all()
  found = assert_equal(boxes, logits, settings(nms_version=version))
  assert (found["num_detections"] == 50).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_images_without_detections(version):
  boxes, logits = batch_of(random_boxes(seed) for seed in range(3))
  logits[0] = -20  # none
  logits[1, 1:] = -20  # one box
  found = assert_equal(boxes, logits, settings(nms_version=version))
  assert found["num_detections"][0] == 0 and 1 <= found["num_detections"][1] <= CLASSES


@pytest.mark.parametrize("version", VERSIONS)
def test_boxes_that_clipping_made_lines_and_points(version):
  boxes, logits = batch_of(random_boxes(seed, empty=40) for seed in range(2))
  boxes[:, 40:60] = 0  # beyond the upper left corner
  boxes[:, 60:80, [0, 2]] = 0
  logits[:, 30:80] += 5
  assert_equal(boxes, logits, settings(nms_version=version, max_num_detections=400))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("top_k", [5, ANCHORS - 1])
def test_number_of_candidates_is_limited(version, top_k):
  boxes, logits = batch_of(random_boxes(seed) for seed in range(2))
  generator = settings(nms_version=version, pre_nms_top_k=top_k)
  found = assert_equal(boxes, logits, generator)
  assert found["num_detections"].max() <= top_k * CLASSES
  assert_equal(boxes, logits - 9, generator)  # few candidates: not sorted


@pytest.mark.parametrize("version", VERSIONS)
def test_overlap_equal_to_the_threshold(version):
  # Intersection over union 0.5 exactly.
  boxes = np.array([[[0, 0, 4, 4], [0, 0, 4, 2], [10, 10, 18, 18]]], np.float32)
  logits = np.array([[[2.0], [1.0], [0.0]]], np.float32)
  found = assert_equal(boxes, logits, settings(nms_version=version))
  assert found["num_detections"][0] == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("max_num_detections", [30, 400])
def test_detections_with_equal_scores(version, max_num_detections):
  """As those of bfloat16 models, and of models that are certain."""
  boxes, logits = batch_of(random_boxes(seed) for seed in range(2))
  logits = np.round(logits)
  logits[:, :50] = 40
  generator = settings(nms_version=version, max_num_detections=max_num_detections)
  found = assert_equal(boxes, logits, generator)
  assert (found["detection_scores"][:, 1:] == found["detection_scores"][:, :-1]).mean() > 0.9


def test_empty_batch():
  found = batched_suppression(
    tf.zeros([0, ANCHORS, 4]), tf.zeros([0, ANCHORS, CLASSES]), settings(pre_nms_top_k=5)
  )
  assert found["detection_boxes"].shape == (0, 50, 4)
  assert found["num_detections"].shape == (0,)


@pytest.mark.parametrize(
  "changes",
  [
    {"nms_version": "v1", "soft_nms_sigma": 0.5},
    {"nms_version": "v2", "use_class_agnostic_nms": True},
    {"nms_version": "v2", "nms_iou_threshold": 0.0},
    {"nms_version": "v3"},
    {"nms_version": "batched"},
  ],
)
def test_other_suppressions_are_not_replaced(changes):
  assert not replaces(settings(**changes))
