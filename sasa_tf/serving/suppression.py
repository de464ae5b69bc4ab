"""Non-maximum suppression as one operation that is built into LiteRT."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

# Between the boxes of two classes, in multiples of the image: they then never overlap.
_DISTANCE = 2.0
_MOST_CANDIDATES = 10_000


def suppress(
  boxes: tf.Tensor,
  scores: tf.Tensor,
  *,
  image_size: tuple[int, int],
  candidates: int,
  score_threshold: float,
  iou_threshold: float,
  max_detections: int,
) -> Mapping[str, tf.Tensor]:
  """Keeps, class by class, the boxes that overlap with no better one.

  All classes go through one suppression, far apart from each other. Model Garden's has a loop for
  every class, which takes LiteRT seconds. Both keep the same boxes, but for those without area,
  clipped from outside of the image, which are left out here, as LiteRT would return them again and
  again; and as long as no class has more than `candidates` above the threshold, nor all together
  more than 10,000.

  Args:
    boxes: [A, 4] of every anchor, (ymin, xmin, ymax, xmax) inside of the image.
    scores: [A, classes].
    image_size: (H, W) in the unit of the boxes.
    candidates: boxes of a class that take part, on average; the best of all classes do.
    score_threshold: scores must be above.
    iou_threshold: share of overlap above which the lower score goes.
    max_detections: M.

  Returns:
    As `DetectionModule`, for a batch of one image.
  """
  anchors, classes = scores.shape
  exists = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1, keepdims=True)
  scores = tf.where(exists, scores, 0.0)
  candidates = min(candidates * classes, _MOST_CANDIDATES, anchors * classes)
  best = tf.math.top_k(tf.reshape(scores, [-1]), candidates)
  labels = best.indices % classes
  chosen = tf.gather(boxes, best.indices // classes)
  apart = tf.cast(labels, boxes.dtype)[:, None] * (_DISTANCE * max(image_size))
  kept, kept_scores, number = tf.raw_ops.NonMaxSuppressionV5(
    boxes=chosen + apart,
    scores=best.values,
    max_output_size=max_detections,
    iou_threshold=iou_threshold,
    score_threshold=score_threshold,
    soft_nms_sigma=0.0,
    pad_to_max_output_size=True,
  )
  exists = tf.range(max_detections) < number
  found = {
    "detection_boxes": tf.where(exists[:, None], tf.gather(chosen, kept), 0.0),
    "detection_scores": tf.where(exists, kept_scores, 0.0),
    "detection_classes": tf.where(exists, tf.gather(labels, kept) + 1, 0),
    "num_detections": number,
  }
  return {name: values[None] for name, values in found.items()}
