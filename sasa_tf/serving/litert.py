"""Conversion to LiteRT (TensorFlow Lite) models that use built-in operations only."""

from __future__ import annotations

import tempfile

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.ops import tracing_for_export
from sasa_tf.serving.modules.classification_module import ClassificationModule
from sasa_tf.serving.modules.detection_module import DetectionModule
from sasa_tf.serving.saved_model import save


def convert_to_litert(module: ClassificationModule | DetectionModule) -> bytes:
  """Converts the model of an export module to LiteRT.

  The signature `serving_default` takes one image of the model's input size, `images` float32
  [1, H, W, 3], RGB with values from 0 to 255, and returns the outputs of the SavedModel. Detectors
  expect an image that was resized to fit and padded at the bottom and right with the color
  `sasa_tf.serving.modules.normalization.MEAN`. Their boxes are in pixels of this input.

  Args:
    module: export module with restored weights.

  Returns:
    The content of the LiteRT file.

  Raises:
    UserError: If the model contains operations that LiteRT does not support.
  """
  images = tf.TensorSpec([1, *module.prepared_size, 3], name="images")
  with tracing_for_export():
    function = tf.function(module.serve_prepared).get_concrete_function(images)
  with tempfile.TemporaryDirectory() as directory:
    # Given concrete functions, the converter saves them with gradients, which takes minutes.
    save(directory, module, {"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(directory)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
      return converter.convert()
    except Exception as error:  # the converter's exception class is not public
      raise UserError(
        f"the model cannot be converted to LiteRT: {str(error).splitlines()[0]} The attention "
        "implementation must be 'auto' or 'blocked', for example --params_override="
        "task.model.backbone.sasa_resnet.implementation=blocked."
      ) from error
