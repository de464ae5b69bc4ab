"""RetinaNet with our head inside of Model Garden's model, which does anchors and suppression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.vision.modeling import backbones, decoders, retinanet_model
from official.vision.modeling.layers import detection_generator

from sasa_tf.configs.retinanet import RetinaNet, RetinaNetHead
from sasa_tf.tf_keras import RetinaNetHead as Head

# A logit of the class that stands for background: no loss and no detection comes of it, and it is
# finite in float16.
_NEVER = -1e4
# What Model Garden's head offers beyond, with the values that leave it off.
_UNSUPPORTED = {
  "attribute_heads": [],
  "share_classification_heads": False,
  "use_separable_conv": False,
  "share_level_convs": True,
}


class ModelGardenHead(tf_keras.layers.Layer):
  """Our head as Model Garden's detectors expect theirs.

  They count a class 0, background, which RetinaNet's sigmoids have no use for and our head does not
  predict, and want a dictionary of attributes.
  """

  def __init__(self, head: Head, num_anchors: int, **kwargs: Any):
    """Takes a built head and its anchors at each place."""
    super().__init__(**kwargs)
    self.head = head
    self._num_anchors = num_anchors

  def call(
    self, features: Mapping[str, tf.Tensor]
  ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], dict[str, Any]]:
    """Returns class logits, background first, boxes and {}; see `RetinaNetHead`."""
    scores, boxes = self.head(features)
    return {level: self._with_background(x) for level, x in scores.items()}, boxes, {}

  def _with_background(self, logits: tf.Tensor) -> tf.Tensor:
    """[B, H, W, anchors * classes] -> [B, H, W, anchors * (1 + classes)]."""
    *size, channels = logits.shape
    classes = channels // self._num_anchors
    batch, height, width, _ = tf.unstack(tf.shape(logits))
    places = tf.reshape(logits, [batch, height * width, self._num_anchors, classes])
    padded = tf.pad(places, [[0, 0], [0, 0], [0, 0], [1, 0]], constant_values=_NEVER)
    channels = self._num_anchors * (1 + classes)
    return tf.ensure_shape(tf.reshape(padded, [batch, height, width, channels]), [*size, channels])


def build_retinanet(
  input_specs: tf_keras.layers.InputSpec,
  model_config: RetinaNet,
  l2_regularizer: tf_keras.regularizers.Regularizer | None = None,
) -> tf_keras.Model:
  """Builds Model Garden's RetinaNet of registered backbone and decoder, and of our head.

  Args:
    input_specs: of the images, [B, H, W, 3].
    model_config: all of the model; `num_classes` counts background as class 0.
    l2_regularizer: of convolutions and projections.

  Returns:
    Model Garden's `RetinaNetModel` with `backbone`, `decoder` and `head`, all weights built.

  Raises:
    ValueError: no class beside background, or a setting of the head that it does not have.
  """
  if model_config.num_classes < 2:
    raise ValueError(
      "task.model.num_classes must be 2 or more, as it counts background as class 0; received "
      f"{model_config.num_classes}. Use 91 for COCO, 1 more than the classes for other data."
    )
  backbone = backbones.factory.build_backbone(
    input_specs=input_specs,
    backbone_config=model_config.backbone,
    norm_activation_config=model_config.norm_activation,
    l2_regularizer=l2_regularizer,
  )
  decoder = decoders.factory.build_decoder(
    input_specs=backbone.output_specs, model_config=model_config, l2_regularizer=l2_regularizer
  )
  anchor = model_config.anchor
  return retinanet_model.RetinaNetModel(
    backbone,
    decoder,
    # The decoder "identity" is None.
    _build_head((decoder or backbone).output_specs, model_config, l2_regularizer),
    detection_generator.MultilevelDetectionGenerator(
      **_generator_arguments(model_config, input_specs.shape[1:3])
    ),
    min_level=model_config.min_level,
    max_level=model_config.max_level,
    num_scales=anchor.num_scales,
    aspect_ratios=anchor.aspect_ratios,
    anchor_size=anchor.anchor_size,
  )


def _build_head(
  input_specs: Mapping[str, tf.TensorShape],
  model_config: RetinaNet,
  l2_regularizer: tf_keras.regularizers.Regularizer | None,
) -> ModelGardenHead:
  arguments = model_config.head.as_dict()
  for name, off in _UNSUPPORTED.items():
    value = arguments.pop(name)
    if value != off:
      raise ValueError(
        f"task.model.head.{name} must be {off!r}, as {RetinaNetHead.__name__} of sasa_tf has "
        f"nothing else; received {value!r}."
      )
  norm_activation = model_config.norm_activation
  num_anchors = len(model_config.anchor.aspect_ratios) * model_config.anchor.num_scales
  head = Head(
    input_specs,
    num_classes=model_config.num_classes - 1,
    num_anchors=num_anchors,
    num_layers=arguments.pop("num_convs"),
    **arguments,
    activation=norm_activation.activation,
    use_sync_bn=norm_activation.use_sync_bn,
    norm_momentum=norm_activation.norm_momentum,
    norm_epsilon=norm_activation.norm_epsilon,
    kernel_regularizer=l2_regularizer,
  )
  return ModelGardenHead(head, num_anchors, name="head")


def _generator_arguments(model_config: RetinaNet, image_size: Any) -> dict[str, Any]:
  arguments = model_config.detection_generator.as_dict()
  post_processing = arguments.pop("tflite_post_processing")
  del arguments["decode_boxes"]  # Which Model Garden's own builder does not hand on either.
  return {
    **arguments,
    "tflite_post_processing_config": {**post_processing, "input_image_size": tuple(image_size)},
  }
