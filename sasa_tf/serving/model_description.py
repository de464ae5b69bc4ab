"""Describes an export module for clients: its class names, preprocessing and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from official.vision.ops import preprocess_ops

from sasa_tf.errors import UserError
from sasa_tf.serving.metadata import ModelMetadata
from sasa_tf.serving.modules.classification_module import ClassificationModule
from sasa_tf.serving.modules.detection_module import DetectionModule

_CLASSIFIER_OUTPUTS = {
  "logits": "float32 [B, classes]",
  "probs": "float32 [B, classes], probabilities of the classes",
}


def check_class_names(
  params: Any, class_names: Sequence[str] | None, source: str = "the label file"
) -> None:
  """Raises a `UserError` if the number of names is not that of the model's classes.

  Args:
    params: configuration of the model.
    class_names: in label order; None if unknown.
    source: where they are from, for the error.
  """
  classes = params.task.model.num_classes
  if class_names is not None and len(class_names) != classes:
    raise UserError(
      f"task.model.num_classes is {classes}, but {source} has {len(class_names)} class names. Pass "
      "the label file of the training data with --labels, or the num_classes of the training."
    )


def describe_model(
  module: ClassificationModule | DetectionModule, class_names: Sequence[str] | None
) -> ModelMetadata:
  """Returns the metadata of a model.

  Args:
    module: export module.
    class_names: in label order, with the background first for detectors; None if unknown.
  """
  is_detector = isinstance(module, DetectionModule)
  return ModelMetadata(
    task="detection" if is_detector else "classification",
    class_names=None if class_names is None else tuple(class_names),
    preprocessing=_common(module) | (_fit(module) if is_detector else _crop(module)),
    outputs=_detector_outputs(module) if is_detector else _CLASSIFIER_OUTPUTS,
  )


def _common(module: Any) -> dict[str, Any]:
  """Returns what the model expects of `images`, the input after resizing."""
  return {
    "image_size": [int(size) for size in module.prepared_size],
    "color_order": "RGB",
    "value_range": [0, 255],
    "normalization": "part of the model",
    "mean": [float(value) for value in preprocess_ops.MEAN_RGB],
    "stddev": [float(value) for value in preprocess_ops.STDDEV_RGB],
  }


def _crop(module: ClassificationModule) -> dict[str, Any]:
  data = module.params.task.validation_data
  return {
    "center_crop_fraction": data.center_crop_fraction if data.aug_crop else None,
    "resize_method": data.tf_resize_method,
    "keep_aspect_ratio": False,
  }


def _fit(module: DetectionModule) -> dict[str, Any]:
  return {
    "resize_to_fit": [int(size) for size in module.params.task.model.input_size[:2]],
    "resize_method": "bilinear",
    "keep_aspect_ratio": bool(module.params.task.validation_data.parser.keep_aspect_ratio),
    "padding": "bottom and right, with the mean color",
  }


def _detector_outputs(module: DetectionModule) -> dict[str, str]:
  export, generator = module.params.task.export_config, module.params.task.model.detection_generator
  number = generator.max_num_detections
  unit = "fractions of the image size" if export.output_normalized_coordinates else "pixels"
  classes = "float32" if export.cast_detection_classes_to_float else "int32"
  count = "float32" if export.cast_num_detections_to_float else "int32"
  return {
    "detection_boxes": f"float32 [B, {number}, 4], ymin, xmin, ymax, xmax in {unit}",
    "detection_scores": f"float32 [B, {number}], in descending order",
    "detection_classes": f"{classes} [B, {number}], from 1; 0 is background",
    "num_detections": f"{count} [B], number of valid detections; the others are zero",
  }
