"""Export module of detectors: images of any size in, boxes in pixels of each image out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.vision.modeling.layers import detection_generator
from official.vision.ops import anchor, preprocess_ops
from official.vision.serving import export_base

from sasa_tf.data.images.orientation import decode_upright
from sasa_tf.errors import UserError
from sasa_tf.modeling.builders import build_retinanet
from sasa_tf.serving.modules.non_max_suppression import non_max_suppression
from sasa_tf.serving.modules.normalization import normalize

Detections = Mapping[str, tf.Tensor]


class DetectionModule(export_base.ExportModule):
  """RetinaNet with non-maximum suppression, for images of any size.

  Each image is preprocessed as in the evaluation: resized to fit the model's input with its aspect
  ratio preserved, normalized, and zero-padded at the bottom and right. Unlike in the evaluation,
  the image is resized before it is normalized, so that a large image is never held in float32.

  The signatures take `image_tensor` uint8 [B, H, W, 3] (RGB), `image_bytes` strings [B] or
  `tf_example` strings [B]; the encoded images have any size and are decoded as `decode_upright`
  does. With P = `task.model.detection_generator.max_num_detections`, they return:

  * `detection_boxes` float32 [B, P, 4]: (ymin, xmin, ymax, xmax) in pixels of the displayed image,
    clipped to it. With `task.export_config.output_normalized_coordinates`, fractions of
    its height and width.
  * `detection_scores` float32 [B, P]: between 0 and 1, in descending order.
  * `detection_classes` int32 [B, P]: from 1. Class 0 is background and is never detected.
  * `num_detections` int32 [B]: number of valid detections. Entries beyond it are zero.
  """

  def __init__(self, params: Any, *, batch_size: int | None, **kwargs: Any):
    """Takes Model Garden's `ExportModule` arguments.

    Raises:
      UserError: If the configuration disables non-maximum suppression or does not support the
        batch size.
    """
    _check(params.task, batch_size)
    super().__init__(params, batch_size=batch_size, **kwargs)

  @property
  def _parser(self) -> Any:
    return self.params.task.validation_data.parser

  @property
  def prepared_size(self) -> list[int]:
    """(H, W) of the model's input, including padding."""
    size = list(self._input_image_size)
    if not self._parser.pad:
      return size
    return preprocess_ops.compute_padded_size(size, 2**self.params.task.model.max_level)

  def _build_model(self) -> tf_keras.Model:
    return build_retinanet(
      tf_keras.layers.InputSpec(shape=[self._batch_size, *self.prepared_size, 3]),
      self.params.task.model,
    )

  def prepare(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Maps one image uint8 [H, W, 3] to the model's input, its scale (y, x) and size (H, W)."""
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.constant(self._input_image_size, tf.float32) / size
    if self._parser.keep_aspect_ratio:
      scale = tf.reduce_min(scale)
    resized = tf.maximum(tf.round(size * scale), 1)  # thin images keep at least one pixel
    image = normalize(tf.image.resize(image, tf.cast(resized, tf.int32)))
    image = tf.image.pad_to_bounding_box(image, 0, 0, *self.prepared_size)
    return tf.ensure_shape(image, [*self.prepared_size, 3]), resized / size, size

  @tf.function
  def detect(self, images: tf.Tensor) -> Detections:
    """Detects objects in preprocessed images [B, H, W, 3]. Boxes are in pixels of these images."""
    size = tf.constant([self._input_image_size], tf.float32)
    # As in Model Garden, `call` is called directly: `__call__` accepts a single input only.
    found = self.model.call(
      images, image_shape=tf.repeat(size, tf.shape(images)[0], axis=0), training=False
    )
    boxes, scores, classes = (found[f"detection_{n}"] for n in ("boxes", "scores", "classes"))
    exists = tf.sequence_mask(found["num_detections"], scores.shape[1])
    return {
      "detection_boxes": tf.where(exists[..., None], boxes, 0),
      "detection_scores": tf.where(exists, scores, 0),
      "detection_classes": tf.where(exists, classes, 0),
      "num_detections": found["num_detections"],
    }

  def serve_prepared(self, images: tf.Tensor) -> Detections:
    """Detects objects in one image of the model's input size, for LiteRT.

    Args:
      images: float32 [1, H, W, 3], values from 0 to 255.

    Returns:
      The outputs of the signatures. Boxes are in pixels of this input.
    """
    model, config = self.model, self.params.task.model
    features = model.backbone(normalize(images))
    scores, boxes, _ = model.head(model.decoder(features) if model.decoder else features)
    anchors = anchor.Anchor(
      config.min_level,
      config.max_level,
      image_size=self.prepared_size,
      **config.anchor.as_dict(),
    ).multilevel_boxes
    settings = config.detection_generator
    decode = detection_generator.MultilevelDetectionGenerator(
      apply_nms=False, box_coder_weights=settings.box_coder_weights
    )
    decoded = decode(
      boxes,
      scores,
      {level: of_level[None] for level, of_level in anchors.items()},
      image_shape=tf.constant([self._input_image_size], tf.float32),
    )
    return self._in_units(
      non_max_suppression(
        decoded["decoded_boxes"][0, :, 0],
        decoded["decoded_box_scores"][0],
        image_size=self.prepared_size,
        candidates=settings.pre_nms_top_k,
        score_threshold=settings.pre_nms_score_threshold,
        iou_threshold=settings.nms_iou_threshold,
        max_detections=settings.max_num_detections,
      ),
      tf.constant([self._input_image_size], tf.float32),
    )

  def _in_units(self, detections: Detections, sizes: tf.Tensor) -> Detections:
    """Converts boxes and dtypes as `task.export_config` requests, for image sizes [B, 2]."""
    export, detections = self.params.task.export_config, dict(detections)
    if export.output_normalized_coordinates:
      detections["detection_boxes"] /= tf.tile(sizes, [1, 2])[:, None]
    if export.cast_num_detections_to_float:
      detections["num_detections"] = tf.cast(detections["num_detections"], tf.float32)
    if export.cast_detection_classes_to_float:
      detections["detection_classes"] = tf.cast(detections["detection_classes"], tf.float32)
    return detections

  def _serve_each(self, inputs: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor]) -> Detections:
    # Decoding and resizing have no GPU kernels.
    with tf.device("cpu:0"):
      images, scales, sizes = tf.map_fn(
        lambda each: self.prepare(decode(each)),
        inputs,
        fn_output_signature=(
          tf.TensorSpec([*self.prepared_size, 3]),
          tf.TensorSpec([2]),
          tf.TensorSpec([2]),
        ),
        parallel_iterations=32,
      )
    # All signatures share this shape, so that `detect` is traced once.
    images = tf.ensure_shape(images, [self._batch_size, *self.prepared_size, 3])
    detections = dict(self.detect(images))
    boxes = detections["detection_boxes"] / tf.tile(scales, [1, 2])[:, None]
    detections["detection_boxes"] = tf.clip_by_value(boxes, 0, tf.tile(sizes, [1, 2])[:, None])
    return self._in_units(detections, sizes)

  def serve(self, images: tf.Tensor) -> Detections:
    """Detects objects in decoded images."""
    return self._serve_each(images, tf.identity)

  @tf.function
  def inference_from_image_bytes(self, inputs: tf.Tensor) -> Detections:
    """Detects objects in encoded images: strings [B], see `decode_upright`."""
    return self._serve_each(inputs, decode_upright)

  @tf.function
  def inference_from_tf_example(self, inputs: tf.Tensor) -> Detections:
    """Detects objects in serialized `tf.train.Example`s: strings [B]."""
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    return self._serve_each(tf.io.parse_example(inputs, features)["image/encoded"], decode_upright)


def _check(task: Any, batch_size: int | None) -> None:
  generator = task.model.detection_generator
  if not generator.apply_nms or generator.nms_version == "tflite":
    raise UserError(
      "exported detectors apply non-maximum suppression: task.model.detection_generator must have "
      "apply_nms=True and nms_version v1, v2, v3 or batched; received "
      f"apply_nms={generator.apply_nms} and nms_version={generator.nms_version!r}. Change them "
      "with --params_override."
    )
  if generator.nms_version == "v1" and batch_size is None:
    raise UserError(
      "task.model.detection_generator.nms_version=v1 requires a fixed batch size. Pass "
      "--batch_size, or --params_override=task.model.detection_generator.nms_version=v2."
    )
  if task.export_config.output_intermediate_features:
    raise UserError(
      "task.export_config.output_intermediate_features must be False: exported detectors return "
      "only detections. Change it with --params_override."
    )
