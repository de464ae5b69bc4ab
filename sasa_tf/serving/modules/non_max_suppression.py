"""Non-maximum suppression of all classes in one operation that LiteRT supports."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

# Offset between the boxes of different classes, in image sizes, so that they never overlap.
_CLASS_OFFSET = 2.0
_MAX_CANDIDATES = 10_000


def non_max_suppression(
  boxes: tf.Tensor,
  scores: tf.Tensor,
  *,
  image_size: tuple[int, int],
  candidates: int,
  score_threshold: float,
  iou_threshold: float,
  max_detections: int,
) -> Mapping[str, tf.Tensor]:
  """Per-class non-maximum suppression.

  The boxes of each class are shifted by a class offset, so that one suppression handles all
  classes. Model Garden loops over the classes, which takes seconds in LiteRT. The results are equal
  with two exceptions. Boxes without area, which result from clipping to the image, are dropped,
  because LiteRT would return them repeatedly. Candidates are dropped if a class has more than
  `candidates` boxes above the threshold, or all classes together more than 10,000.

  Args:
    boxes: [A, 4], (ymin, xmin, ymax, xmax) per anchor, clipped to the image.
    scores: [A, classes].
    image_size: (H, W) in the unit of the boxes.
    candidates: average number of candidates per class. The best of all classes are selected.
    score_threshold: minimum score (exclusive).
    iou_threshold: intersection over union above which the box with the lower score is dropped.
    max_detections: number of detections in the output.

  Returns:
    The outputs of `DetectionModule` for a batch of one image.
  """
  anchors, classes = scores.shape
  exists = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1, keepdims=True)
  scores = tf.where(exists, scores, 0.0)
  candidates = min(candidates * classes, _MAX_CANDIDATES, anchors * classes)
  best = tf.math.top_k(tf.reshape(scores, [-1]), candidates)
  labels = best.indices % classes
  chosen = tf.gather(boxes, best.indices // classes)
  offsets = tf.cast(labels, boxes.dtype)[:, None] * (_CLASS_OFFSET * max(image_size))
  selected, selected_scores, number = tf.raw_ops.NonMaxSuppressionV5(
    boxes=chosen + offsets,
    scores=best.values,
    max_output_size=max_detections,
    iou_threshold=iou_threshold,
    score_threshold=score_threshold,
    soft_nms_sigma=0.0,
    pad_to_max_output_size=True,
  )
  exists = tf.range(max_detections) < number
  found = {
    "detection_boxes": tf.where(exists[:, None], tf.gather(chosen, selected), 0.0),
    "detection_scores": tf.where(exists, selected_scores, 0.0),
    "detection_classes": tf.where(exists, tf.gather(labels, selected) + 1, 0),
    "num_detections": number,
  }
  return {name: values[None] for name, values in found.items()}
