"""Random boxes, and their suppression by Model Garden."""

import numpy as np
import tensorflow as tf
from official.vision.configs import retinanet
from official.vision.modeling.layers import detection_generator

ANCHORS, CLASSES, SIZE = 400, 3, (48, 64)


def random_boxes(seed, empty=0):
  """Returns random boxes [A, 4], the first `empty` of them without area, and logits [A, C]."""
  random = np.random.default_rng(seed)
  centers, sides = random.uniform(0, SIZE, [ANCHORS, 2]), random.uniform(4, 30, [ANCHORS, 2])
  boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
  boxes = boxes.clip(0, np.tile(SIZE, 2)).astype(np.float32)
  boxes[:empty, [1, 3]] = SIZE[1]
  scores = random.uniform(1e-6, 1, [ANCHORS, CLASSES])
  return boxes, (np.log(scores) - np.log1p(-scores)).astype(np.float32)


def settings(**changes):
  """Returns the configuration of a detection generator."""
  return retinanet.DetectionGenerator(**{"max_num_detections": 50, **changes})


def model_garden_nms(boxes, logits, generator):
  """Returns the detections of boxes [B, A, 4] with logits [B, A, C]; the others are zero."""
  batch, anchors, classes = logits.shape
  generate = detection_generator.MultilevelDetectionGenerator(
    pre_nms_top_k=generator.pre_nms_top_k,
    pre_nms_score_threshold=generator.pre_nms_score_threshold,
    nms_iou_threshold=generator.nms_iou_threshold,
    max_num_detections=generator.max_num_detections,
    nms_version=generator.nms_version,
  )
  # One level, with a background class. The boxes are the anchors.
  logits = np.concatenate([np.zeros([batch, anchors, 1], np.float32), logits], axis=2)
  found = generate(
    {"3": tf.zeros([batch, 1, anchors, 4])},
    {"3": tf.reshape(logits, [batch, 1, anchors, 1 + classes])},
    {"3": tf.reshape(boxes, [batch, 1, anchors, 4])},
    tf.constant([SIZE] * batch, tf.float32),
  )
  number = found["num_detections"].numpy()
  exists = np.arange(generator.max_num_detections) < number[:, None]
  return {
    "num_detections": number,
    "detection_boxes": found["detection_boxes"].numpy() * exists[..., None],
    "detection_scores": found["detection_scores"].numpy() * exists,
    "detection_classes": found["detection_classes"].numpy() * exists,
  }


def assert_same(found, expected):
  assert set(found) == set(expected)
  for name, value in found.items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
