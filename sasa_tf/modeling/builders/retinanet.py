"""Model Garden's RetinaNet, which generates anchors and detections, with sasa_tf's head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.vision.modeling import retinanet_model
from official.vision.modeling.backbones import factory as backbone_factory
from official.vision.modeling.decoders import factory as decoder_factory
from official.vision.modeling.layers import detection_generator

from sasa_tf.configs.retinanet import RetinaNet, RetinaNetHead
from sasa_tf.modeling.builders.build_errors import MODEL, section_errors
from sasa_tf.modeling.builders.norm_arguments import norm_arguments
from sasa_tf.tf_keras import RetinaNetHead as Head

# Logit of the background class: its loss is zero and it is never detected. Finite in float16.
_BACKGROUND_LOGIT = -1e4
# Options of Model Garden's head that sasa_tf's does not support, with their default values.
_UNSUPPORTED = {
  "attribute_heads": [],
  "share_classification_heads": False,
  "use_separable_conv": False,
  "share_level_convs": True,
}


class ModelGardenHead(tf_keras.layers.Layer):
  """Adapts `RetinaNetHead` to the interface of Model Garden's detectors.

  They expect logits of a background class 0, which `RetinaNetHead` does not predict, and a
  dictionary of attributes.
  """

  def __init__(self, head: Head, num_classes: int, num_anchors: int, **kwargs: Any):
    """Wraps a built head of `num_classes` classes and `num_anchors` anchors per pixel."""
    super().__init__(**kwargs)
    self.head = head
    self._num_classes = num_classes
    self._num_anchors = num_anchors

  def call(
    self, features: Mapping[str, tf.Tensor]
  ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], dict[str, Any]]:
    """Returns class logits with background first, boxes, and {}; see `RetinaNetHead`."""
    scores, boxes = self.head(features)
    return {level: self._with_background(x) for level, x in scores.items()}, boxes, {}

  def _with_background(self, logits: tf.Tensor) -> tf.Tensor:
    """Adds background: [B, H, W, anchors * classes] -> [B, H, W, anchors * (1 + classes)]."""
    batch, height, width, _ = tf.unstack(tf.shape(logits))
    anchors = tf.reshape(logits, [batch, height * width, self._num_anchors, self._num_classes])
    padded = tf.pad(anchors, [[0, 0], [0, 0], [0, 0], [1, 0]], constant_values=_BACKGROUND_LOGIT)
    channels = self._num_anchors * (1 + self._num_classes)
    result = tf.reshape(padded, [batch, height, width, channels])
    if not tf.executing_eagerly():
      # Not `tf.ensure_shape`, an operation that TensorFlow.js cannot run.
      result.set_shape([*logits.shape[:3], channels])
    return result


def build_retinanet(
  input_specs: tf_keras.layers.InputSpec,
  model_config: RetinaNet,
  l2_regularizer: Any = None,
) -> tf_keras.Model:
  """Builds Model Garden's RetinaNet with a registered backbone and decoder and sasa_tf's head.

  Args:
    input_specs: spec of the images, [B, H, W, 3].
    model_config: config of the model; `num_classes` counts background as class 0.
    l2_regularizer: tf_keras regularizer of convolutions and projections, or None.

  Returns:
    Model Garden's `RetinaNetModel` with built `backbone`, `decoder` and `head`.

  Raises:
    ValueError: there is no class besides background, or the head does not support an option.
    ConfigError: backbone, decoder or head cannot be built. The message names the keys.
  """
  if model_config.num_classes < 2:
    raise ValueError(
      "task.model.num_classes must be at least 2, because it counts background as class 0; "
      f"received {model_config.num_classes}. Use 91 for COCO and the number of classes + 1 for "
      "other data."
    )
  image_shape: Any = input_specs.shape
  backbone = backbone_factory.build_backbone(
    input_specs=input_specs,
    backbone_config=model_config.backbone,
    norm_activation_config=model_config.norm_activation,
    l2_regularizer=l2_regularizer,
  )
  decoder = decoder_factory.build_decoder(
    input_specs=backbone.output_specs, model_config=model_config, l2_regularizer=l2_regularizer
  )
  anchor = model_config.anchor
  return retinanet_model.RetinaNetModel(
    backbone,
    decoder,
    # The decoder is None for type "identity".
    _build_head((decoder or backbone).output_specs, model_config, l2_regularizer),
    detection_generator.MultilevelDetectionGenerator(
      **_generator_arguments(model_config, image_shape[1:3])
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
  arguments = head_arguments(model_config)
  with section_errors(f"{MODEL}.head", model_config.head.as_dict()):
    head = Head(input_specs, **arguments, kernel_regularizer=l2_regularizer)
  return ModelGardenHead(head, arguments["num_classes"], arguments["num_anchors"], name="head")


def head_arguments(model_config: RetinaNet) -> dict[str, Any]:
  """Returns the arguments of sasa_tf's `RetinaNetHead` that the configuration of a detector sets.

  Raises:
    ValueError: the head does not support an option.
  """
  arguments = model_config.head.as_dict()
  for name, default in _UNSUPPORTED.items():
    value = arguments.pop(name)
    if value != default:
      raise ValueError(
        f"task.model.head.{name} must be {default!r}, because {RetinaNetHead.__name__} of sasa_tf "
        f"supports no other value; received {value!r}."
      )
  anchor = model_config.anchor
  return {
    "num_classes": model_config.num_classes - 1,
    "num_anchors": len(anchor.aspect_ratios) * anchor.num_scales,
    "num_layers": arguments.pop("num_convs"),
    **arguments,
    **norm_arguments(model_config.norm_activation),
  }


def _generator_arguments(model_config: RetinaNet, image_size: Any) -> dict[str, Any]:
  arguments = model_config.detection_generator.as_dict()
  post_processing = arguments.pop("tflite_post_processing")
  del arguments["decode_boxes"]  # Model Garden's builder does not pass it either.
  return {
    **arguments,
    "tflite_post_processing_config": {**post_processing, "input_image_size": tuple(image_size)},
  }
