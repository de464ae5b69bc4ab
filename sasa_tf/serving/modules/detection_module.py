"""Export module of detectors: images of any size in, boxes in pixels of each image out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.vision.ops import preprocess_ops

from sasa_tf.errors import UserError
from sasa_tf.modeling.builders import build_retinanet
from sasa_tf.serving.modules.batched_suppression import batched_suppression, replaces
from sasa_tf.serving.modules.image_module import ImageModule, Outputs, Signature, Step
from sasa_tf.serving.modules.non_max_suppression import non_max_suppression
from sasa_tf.serving.modules.normalization import normalize
from sasa_tf.serving.modules.portable_suppression import portable_suppression
from sasa_tf.serving.modules.retinanet_outputs import boxes_and_scores


class DetectionModule(ImageModule):
  """RetinaNet with non-maximum suppression, for images of any size.

  Each image is preprocessed as in the evaluation: resized to fit the model's input with its aspect
  ratio preserved, normalized, and zero-padded at the bottom and right. Unlike in the evaluation,
  the image is resized before it is normalized, so that a large image is never held in float32.

  Suppression versions v1 and v2 are replaced by a faster operation with the same results, see
  `batched_suppression`, unless `task.export_config.batched_nms` is False.

  With P = `task.model.detection_generator.max_num_detections`, the signatures return:

  * `detection_boxes` float32 [B, P, 4]: (ymin, xmin, ymax, xmax) in pixels of the displayed image,
    clipped to it. With `task.export_config.output_normalized_coordinates`, fractions of
    its height and width.
  * `detection_scores` float32 [B, P]: between 0 and 1, in descending order.
  * `detection_classes` int32 [B, P]: from 1. Class 0 is background and is never detected.
  * `num_detections` int32 [B]: number of valid detections. Entries beyond it are zero.

  With class names, the kind `detect` takes `image_bytes` and also returns
  `detection_class_names`, strings [B, P], empty beyond the detections.

  Images of the signature `prepared` are padded with `normalization.MEAN`, and their boxes are in
  pixels of this input.
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
  def prepared_size(self) -> list[int]:
    """(H, W) of the model's input, including padding."""
    size = list(self._input_image_size)
    if not self._parser.pad:
      return size
    return preprocess_ops.compute_padded_size(size, 2**self.params.task.model.max_level)

  def serve_prepared(self, images: tf.Tensor) -> Outputs:
    """Detects objects in images of the model's input size, in operations of all export formats.

    Args:
      images: float32 [B, H, W, 3], values from 0 to 255. LiteRT has the operations for B = 1.

    Returns:
      The outputs of the signatures. Boxes are in pixels of this input.
    """
    boxes, scores = self._boxes_and_scores(normalize(images))
    generator = self._model_config.detection_generator
    settings: dict[str, Any] = {
      "image_size": self.prepared_size,
      "candidates": generator.pre_nms_top_k,
      "score_threshold": generator.pre_nms_score_threshold,
      "iou_threshold": generator.nms_iou_threshold,
      "max_detections": generator.max_num_detections,
    }
    if images.shape[0] == 1:
      found = non_max_suppression(boxes[0], scores[0], **settings)
    else:
      found = portable_suppression(boxes, scores, **settings)
    return self._in_units(found, tf.constant([self._input_image_size], tf.float32))

  @property
  def _model_config(self) -> Any:
    return self.params.task.model

  @property
  def _parser(self) -> Any:
    return self.params.task.validation_data.parser

  @property
  def image_key(self) -> str:
    """Feature of the encoded image in `tf.train.Example`s."""
    return "image/encoded"

  @property
  def _prepared_spec(self) -> tuple[tf.TensorSpec, tf.TensorSpec, tf.TensorSpec]:
    image = tf.TensorSpec([*self.prepared_size, 3], tf.float32)
    return image, tf.TensorSpec([2], tf.float32), tf.TensorSpec([2], tf.float32)

  def _build_model(self) -> tf_keras.Model:
    return build_retinanet(
      tf_keras.layers.InputSpec(shape=[self._batch_size, *self.prepared_size, 3]),
      self._model_config,
    )

  def _signatures(self, class_names: Sequence[str] | None) -> dict[str, Signature]:
    signatures = super()._signatures(class_names)
    if class_names is None:
      return signatures

    def detect(encoded: tf.Tensor, step: Step) -> Outputs:
      found = self._from_bytes(encoded, step)
      labels = tf.cast(found["detection_classes"], tf.int32)
      # Class 0 is background, which is never detected.
      names = tf.gather(tf.constant(["", *class_names[1:]]), labels)
      return {**found, "detection_class_names": names}

    return {**signatures, "detect": Signature(signatures["image_bytes"].spec, detect)}

  def prepare(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the model's input, and scales (y, x) and sizes (H, W) of the images, [B, 2]."""
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    scale = tf.constant(self._input_image_size, tf.float32) / size
    if self._parser.keep_aspect_ratio:
      scale = tf.reduce_min(scale)
    resized = tf.maximum(tf.round(size * scale), 1)  # thin images keep at least one pixel
    batch = tf.shape(images)[0]
    images = normalize(tf.image.resize(images, tf.cast(resized, tf.int32)))
    images = tf.image.pad_to_bounding_box(images, 0, 0, *self.prepared_size)
    return images, tf.tile((resized / size)[None], [batch, 1]), tf.tile(size[None], [batch, 1])

  def _boxes_and_scores(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return boxes_and_scores(
      self.model, self._model_config, images, image_size=self._input_image_size
    )

  def _step(self, images: tf.Tensor) -> Outputs:
    """Detects objects in normalized images. Boxes are in pixels of these images."""
    generator = self._model_config.detection_generator
    if self.params.task.export_config.batched_nms and replaces(generator):
      return batched_suppression(*self._boxes_and_scores(images), generator)
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

  def _infer(self, prepared: tuple[tf.Tensor, tf.Tensor, tf.Tensor], step: Step) -> Outputs:
    images, scales, sizes = prepared
    detections = dict(step(images))
    boxes = detections["detection_boxes"] / tf.tile(scales, [1, 2])[:, None]
    detections["detection_boxes"] = tf.clip_by_value(boxes, 0, tf.tile(sizes, [1, 2])[:, None])
    return self._in_units(detections, sizes)

  def _infer_prepared(self, images: tf.Tensor, step: Step) -> Outputs:
    size = tf.constant([self._input_image_size], tf.float32)
    return self._in_units(step(normalize(images)), size)

  def _in_units(self, detections: Outputs, sizes: tf.Tensor) -> Outputs:
    """Converts boxes and dtypes as `task.export_config` requests, for image sizes [B, 2]."""
    export, detections = self.params.task.export_config, dict(detections)
    if export.output_normalized_coordinates:
      detections["detection_boxes"] /= tf.tile(sizes, [1, 2])[:, None]
    if export.cast_num_detections_to_float:
      detections["num_detections"] = tf.cast(detections["num_detections"], tf.float32)
    if export.cast_detection_classes_to_float:
      detections["detection_classes"] = tf.cast(detections["detection_classes"], tf.float32)
    return detections


def _check(task: Any, batch_size: int | None) -> None:
  generator, export = task.model.detection_generator, task.export_config
  if not generator.apply_nms or generator.nms_version == "tflite":
    raise UserError(
      "exported detectors apply non-maximum suppression: task.model.detection_generator must have "
      "apply_nms=True and nms_version v1, v2, v3 or batched; received "
      f"apply_nms={generator.apply_nms} and nms_version={generator.nms_version!r}. Change them "
      "with --params_override."
    )
  replaced = export.batched_nms and replaces(generator)
  if generator.nms_version == "v1" and batch_size is None and not replaced:
    raise UserError(
      "task.model.detection_generator.nms_version=v1 requires a fixed batch size. Pass "
      "--batch_size, or --params_override=task.model.detection_generator.nms_version=v2."
    )
  if export.output_intermediate_features:
    raise UserError(
      "task.export_config.output_intermediate_features must be False: exported detectors return "
      "only detections. Change it with --params_override."
    )
