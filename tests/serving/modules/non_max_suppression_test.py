"""Non-maximum suppression for LiteRT matches Model Garden's."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.modeling.layers import detection_generator

from sasa_tf.serving.modules.non_max_suppression import non_max_suppression

ANCHORS, CLASSES, SIZE = 400, 3, (48, 64)
SETTINGS = {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 50}


def random_boxes(seed, empty):
  """Returns random boxes, the first `empty` of them without area, and scores."""
  random = np.random.default_rng(seed)
  centers, sides = random.uniform(0, SIZE, [ANCHORS, 2]), random.uniform(4, 30, [ANCHORS, 2])
  boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
  boxes = boxes.clip(0, np.tile(SIZE, 2)).astype(np.float32)
  boxes[:empty, [1, 3]] = SIZE[1]
  return boxes, random.uniform(0, 1, [ANCHORS, CLASSES]).astype(np.float32)


def suppressed(boxes, scores, candidates=ANCHORS):
  return non_max_suppression(boxes, scores, image_size=SIZE, candidates=candidates, **SETTINGS)


def model_garden_nms(boxes, scores):
  generate = detection_generator.MultilevelDetectionGenerator(
    pre_nms_score_threshold=0.05, nms_iou_threshold=0.5, max_num_detections=50, nms_version="v2"
  )
  # Logits of one level, with a background class. The boxes are the anchors.
  logits = np.log(scores) - np.log1p(-scores)
  logits = np.concatenate([np.zeros([ANCHORS, 1]), logits], axis=1)
  return generate(
    {"3": tf.zeros([1, 1, ANCHORS, 4])},
    {"3": tf.constant(logits, tf.float32, shape=[1, 1, ANCHORS, 1 + CLASSES])},
    {"3": tf.constant(boxes, shape=[1, 1, ANCHORS, 4])},
    tf.constant([SIZE], tf.float32),
  )


def assert_same(found, expected):
  for name, value in found.items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_matches_model_garden(seed):
  boxes, scores = random_boxes(seed, empty=0)
  assert_same(suppressed(boxes, scores), model_garden_nms(boxes, scores))


def test_few_detections_are_padded_with_zeros():
  boxes, scores = random_boxes(0, empty=0)
  scores *= scores > 0.99
  found = {name: value.numpy()[0] for name, value in suppressed(boxes, scores).items()}
  number = found.pop("num_detections")
  assert 0 < number < 50
  assert all(value[:number].any() and not value[number:].any() for value in found.values())


def test_number_of_candidates_is_limited():
  boxes, scores = random_boxes(0, empty=0)
  found = suppressed(boxes, scores, candidates=2)
  assert 1 <= found["num_detections"][0] <= 2 * CLASSES
  assert found["detection_scores"][0, 0] == scores.max()


def test_litert_matches_tensorflow():
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  function = tf.function(suppressed).get_concrete_function(
    tf.TensorSpec([ANCHORS, 4], name="boxes"), tf.TensorSpec([ANCHORS, CLASSES], name="scores")
  )
  converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
  runner = interpreter.Interpreter(model_content=converter.convert()).get_signature_runner()
  boxes, scores = random_boxes(1, empty=100)
  found = runner(boxes=boxes, scores=scores)
  assert found["num_detections"][0] == 50
  assert_same(found, suppressed(boxes, scores))
  corners = found["detection_boxes"][0]
  assert (corners[:, 2:] > corners[:, :2]).all()
