"""Non-maximum suppression for LiteRT matches Model Garden's."""

import pytest
import tensorflow as tf

from sasa_tf.serving.modules.non_max_suppression import non_max_suppression
from tests.serving.modules.suppression_cases import (
  ANCHORS,
  CLASSES,
  SIZE,
  assert_same,
  model_garden_nms,
  random_boxes,
  settings,
)

SETTINGS = {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 50}


def suppressed(boxes, scores, candidates=ANCHORS):
  return non_max_suppression(boxes, scores, image_size=SIZE, candidates=candidates, **SETTINGS)


@pytest.mark.parametrize("seed", range(3))
def test_matches_model_garden(seed):
  boxes, logits = random_boxes(seed)
  expected = model_garden_nms(boxes[None], logits[None], settings())
  assert_same(suppressed(boxes, tf.sigmoid(logits)), expected)


def test_few_detections_are_padded_with_zeros():
  boxes, logits = random_boxes(0)
  scores = tf.where(tf.sigmoid(logits) > 0.99, tf.sigmoid(logits), 0)
  found = {name: value.numpy()[0] for name, value in suppressed(boxes, scores).items()}
  number = found.pop("num_detections")
  assert 0 < number < 50
  assert all(value[:number].any() and not value[number:].any() for value in found.values())


def test_number_of_candidates_is_limited():
  boxes, logits = random_boxes(0)
  scores = tf.sigmoid(logits)
  found = suppressed(boxes, scores, candidates=2)
  assert 1 <= found["num_detections"][0] <= 2 * CLASSES
  assert found["detection_scores"][0, 0] == scores.numpy().max()


def test_litert_matches_tensorflow():
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  function = tf.function(suppressed).get_concrete_function(
    tf.TensorSpec([ANCHORS, 4], name="boxes"), tf.TensorSpec([ANCHORS, CLASSES], name="scores")
  )
  converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
  runner = interpreter.Interpreter(model_content=converter.convert()).get_signature_runner()
  boxes, logits = random_boxes(1, empty=100)
  scores = tf.sigmoid(logits).numpy()
  found = runner(boxes=boxes, scores=scores)
  assert found["num_detections"][0] == 50
  assert_same(found, suppressed(boxes, scores))
  corners = found["detection_boxes"][0]
  assert (corners[:, 2:] > corners[:, :2]).all()
