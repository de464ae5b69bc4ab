"""The suppression of ONNX and OpenVINO exports matches Model Garden's, for any batch size."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.serving.modules.portable_suppression import portable_suppression
from tests.serving.modules.suppression_cases import (
  ANCHORS,
  CLASSES,
  SIZE,
  assert_same,
  model_garden_nms,
  random_boxes,
  settings,
)


@tf.function(
  input_signature=[tf.TensorSpec([None, ANCHORS, 4]), tf.TensorSpec([None, ANCHORS, CLASSES])]
)
def suppressed(boxes, scores):
  return portable_suppression(
    boxes,
    scores,
    image_size=SIZE,
    candidates=ANCHORS,
    score_threshold=0.05,
    iou_threshold=0.5,
    max_detections=50,
  )


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_matches_model_garden_for_each_batch_size(batch):
  cases = [random_boxes(seed) for seed in range(4)]
  boxes, logits = (np.stack(values)[:batch] for values in zip(*cases, strict=True))
  if batch > 1:
    logits[1] = -20  # no detections
    logits[2, 9:] = -20  # few
  found = suppressed(boxes, tf.sigmoid(logits))
  if not batch:
    assert found["detection_boxes"].shape == (0, 50, 4)
    assert found["num_detections"].shape == (0,)
    return
  assert_same(found, model_garden_nms(boxes, logits, settings()))
  assert found["num_detections"][0] == 50


def test_boxes_without_area_are_dropped():
  boxes, logits = random_boxes(0, empty=100)
  found = suppressed(boxes[None], tf.sigmoid(logits)[None])
  corners = found["detection_boxes"][0].numpy()
  assert (corners[:, 2:] > corners[:, :2]).all()


def test_fewer_candidates_than_detections_are_padded():
  boxes, logits = random_boxes(0)
  found = portable_suppression(
    tf.constant(boxes[None, :5]),
    tf.sigmoid(logits[None, :5]),
    image_size=SIZE,
    candidates=2,
    score_threshold=0.05,
    iou_threshold=0.5,
    max_detections=9,
  )
  assert found["detection_boxes"].shape == (1, 9, 4)
  assert found["detection_scores"].shape == (1, 9)
  number = int(found["num_detections"][0])
  assert 1 <= number <= 6
  assert not found["detection_boxes"][0, number:].numpy().any()
