"""LiteRT (TensorFlow Lite) files that use built-in operations only."""

from __future__ import annotations

import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import begins_with
from sasa_tf.serving.formats.associated_files import append_associated_files
from sasa_tf.serving.formats.calibration import check_calibration_images
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions, Quantization
from sasa_tf.serving.formats.saved_model import save

if TYPE_CHECKING:
  import numpy as np
  from official.vision.serving import export_base

# XNNPACK pads narrower matrices.
_PRODUCT_COLUMNS = 32


def write(module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions) -> None:
  """Writes an export module as a LiteRT file, see `convert`.

  The file ends with a ZIP archive of labels.txt and model_metadata.json, LiteRT's associated files.

  Args:
    module: export module with restored weights.
    path: file to create.
    options: of the export.

  Raises:
    UserError: the model contains operations that LiteRT does not support.
  """
  path.write_bytes(convert(module, options.quantize, options.calibration_images))
  append_associated_files(path, options.metadata)


def convert(
  module: export_base.ExportModule,
  quantize: Quantization = "none",
  calibration_images: np.ndarray | None = None,
) -> bytes:
  """Converts the model of an export module to LiteRT.

  The signature `serving_default` takes one image of the model's input size, `images` float32
  [1, H, W, 3], RGB with values from 0 to 255, and returns the outputs of the SavedModel. Detectors
  expect an image that was resized to fit and padded at the bottom and right with the color
  `sasa_tf.serving.modules.normalization.MEAN`. Their boxes are in pixels of this input.

  Args:
    module: export module with restored weights.
    quantize: "float16" stores the weights in float16. "int8" computes a classifier in 8-bit
      integers, and of a detector all but the suppression; inputs and outputs stay float32.
    calibration_images: for "int8", at least one: float32 [B, H, W, 3], values from 0 to 255.

  Returns:
    The content of the LiteRT file.

  Raises:
    UserError: the model contains operations that LiteRT does not support.
  """
  import tensorflow as tf

  from sasa_tf.ops import tracing_for_export
  from sasa_tf.serving.modules.detection_module import DetectionModule

  images = tf.TensorSpec([1, *module.prepared_size, 3], name="images")
  quantizable = quantize == "int8"
  columns = 0 if quantizable else _PRODUCT_COLUMNS
  with tracing_for_export(quantizable=quantizable, product_columns=columns):
    function = tf.function(module.serve_prepared).get_concrete_function(images)
  with tempfile.TemporaryDirectory() as directory:
    # Given concrete functions, the converter saves them with gradients, which takes minutes.
    save(pathlib.Path(directory), module, {"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(directory)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    _quantize(
      converter, quantize, calibration_images, is_detector=isinstance(module, DetectionModule)
    )
    try:
      return converter.convert()
    except Exception as error:  # the converter's exception class is not public
      raise UserError(
        f"the model cannot be converted to LiteRT: {str(error).splitlines()[0]} The attention "
        "implementation must be 'auto' or 'blocked', for example --params_override="
        "task.model.backbone.sasa_resnet.implementation=blocked."
      ) from error


def _quantize(
  converter: Any,
  quantize: Quantization,
  calibration_images: np.ndarray | None,
  *,
  is_detector: bool,
) -> None:
  """Sets the options of a converter."""
  import tensorflow as tf

  if quantize == "none":
    return
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  if quantize == "float16":
    converter.target_spec.supported_types = [tf.float16]
    return
  images = check_calibration_images(calibration_images)
  converter.representative_dataset = lambda: ([image[None]] for image in images)
  integers = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
  # Non-maximum suppression exists in float32 only.
  rest = [tf.lite.OpsSet.TFLITE_BUILTINS] if is_detector else []
  converter.target_spec.supported_ops = [*integers, *rest]


FORMAT = ExportFormat(
  name="litert",
  file_name="model.tflite",
  write=write,
  description="LiteRT (TensorFlow Lite) file with built-in operations only, for batches of 1",
  quantizations=("none", "float16", "int8"),
  # Identifier in the header of a LiteRT file.
  is_own=begins_with(b"TFL3", offset=4),
)
