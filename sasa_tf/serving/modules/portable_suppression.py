"""Non-maximum suppression of a batch in operations that ONNX, OpenVINO and TensorFlow.js have."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.serving.modules.image_module import Outputs

# Offset between the boxes of different classes and images, in image sizes, so that they never
# overlap.
_OFFSET = 2.0
_MAX_CANDIDATES = 10_000


def portable_suppression(
  boxes: tf.Tensor,
  scores: tf.Tensor,
  *,
  image_size: tuple[int, int],
  candidates: int,
  score_threshold: float,
  iou_threshold: float,
  max_detections: int,
) -> Outputs:
  """Per-class non-maximum suppression of a batch of any size, without a loop.

  One operation suppresses the boxes of all classes and images: classes are shifted horizontally and
  images vertically, so that they do not overlap. For arguments and results see
  `non_max_suppression`.

  Args:
    boxes: [B, A, 4], clipped to the image.
    scores: [B, A, classes].
    image_size: (H, W) in the unit of the boxes.
    candidates: average number of candidates per class.
    score_threshold: minimum score (exclusive).
    iou_threshold: intersection over union above which the box with the lower score is dropped.
    max_detections: number of detections of an image.

  Returns:
    The outputs of `DetectionModule`.
  """
  batch = boxes.shape[0] or tf.shape(boxes)[0]
  _, anchors, classes = scores.shape
  exists = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1, keepdims=True)
  scores = tf.reshape(tf.where(exists, scores, 0.0), [-1, anchors * classes])
  candidates = min(candidates * classes, _MAX_CANDIDATES, anchors * classes)
  best = tf.math.top_k(scores, candidates)
  labels = best.indices % classes
  chosen = tf.gather(boxes, best.indices // classes, batch_dims=1)
  right = tf.cast(labels, tf.float32) * (_OFFSET * max(image_size))
  down = tf.cast(tf.range(batch), tf.float32)[:, None] * (_OFFSET * max(image_size))
  down += tf.zeros_like(right)
  selected = tf.image.non_max_suppression(
    tf.reshape(chosen + tf.stack([down, right, down, right], axis=-1), [-1, 4]),
    tf.reshape(best.values, [-1]),
    # All that are not suppressed: the detections of an image are limited below.
    max_output_size=batch * candidates,
    iou_threshold=iou_threshold,
    score_threshold=score_threshold,
  )
  is_selected = tf.scatter_nd(selected[:, None], tf.ones_like(selected), [batch * candidates])
  is_selected = tf.reshape(is_selected, [-1, candidates]) > 0
  kept = tf.math.top_k(tf.where(is_selected, best.values, 0.0), min(max_detections, candidates))
  exists = kept.values > 0
  found = {
    "detection_boxes": tf.gather(chosen, kept.indices, batch_dims=1) * _number(exists)[..., None],
    "detection_scores": kept.values,
    "detection_classes": tf.where(exists, tf.gather(labels, kept.indices, batch_dims=1) + 1, 0),
  }
  missing = max(0, max_detections - candidates)
  if missing:
    found = {
      name: tf.pad(values, [[0, 0], [0, missing], *[[0, 0]] * (values.shape.rank - 2)])
      for name, values in found.items()
    }
  return {**found, "num_detections": tf.reduce_sum(tf.cast(exists, tf.int32), axis=1)}


def _number(condition: tf.Tensor) -> tf.Tensor:
  return tf.cast(condition, tf.float32)
