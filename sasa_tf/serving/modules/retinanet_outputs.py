"""Boxes and scores of all anchors, before non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras
from official.vision.modeling.layers import detection_generator
from official.vision.ops import anchor

from sasa_tf.configs.retinanet import RetinaNet


def boxes_and_scores(
  model: tf_keras.Model,
  config: RetinaNet,
  images: tf.Tensor,
  *,
  image_size: Sequence[int],
) -> tuple[tf.Tensor, tf.Tensor]:
  """Runs a RetinaNet without suppression.

  Args:
    model: Model Garden's `RetinaNetModel`.
    config: its configuration.
    images: normalized images, float32 [B, H, W, 3], with static H and W.
    image_size: (H, W) without padding, to which boxes are clipped.

  Returns:
    Boxes [B, A, 4], (ymin, xmin, ymax, xmax) in pixels, and scores [B, A, classes], both float32,
    for A anchors and the classes without background.
  """
  features = model.backbone(images)
  scores, boxes, _ = model.head(model.decoder(features) if model.decoder else features)
  anchors = anchor.Anchor(
    config.min_level,
    config.max_level,
    image_size=list(images.shape[1:3]),
    **config.anchor.as_dict(),
  ).multilevel_boxes
  decode = detection_generator.MultilevelDetectionGenerator(
    apply_nms=False, box_coder_weights=config.detection_generator.box_coder_weights
  )
  batch = images.shape[0] or tf.shape(images)[0]
  decoded = decode(
    boxes,
    scores,
    {level: tf.tile(of_level[None], [batch, 1, 1, 1]) for level, of_level in anchors.items()},
    image_shape=tf.constant([image_size], tf.float32),
  )
  return (
    tf.cast(decoded["decoded_boxes"][:, :, 0], tf.float32),
    tf.cast(decoded["decoded_box_scores"], tf.float32),
  )
