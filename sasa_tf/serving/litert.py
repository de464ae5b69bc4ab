"""LiteRT (TensorFlow Lite) models of built-in operations alone."""

from __future__ import annotations

import tempfile

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving.detection import DetectionModule
from sasa_tf.serving.image_classification import ClassificationModule
from sasa_tf.serving.saved_model import save


def litert_model(module: ClassificationModule | DetectionModule) -> bytes:
  """Converts the model of an export module.

  Its signature `serving_default` takes one prepared image, `images` float32 [1, H, W, 3], grey
  levels 0 to 255 in the order RGB and of the model's input size, and returns what the SavedModel
  does. For detection the image has been resized to fit and padded below and to the right with the
  grey levels `sasa_tf.serving.normalization.MEAN`; boxes are in pixels of this input.

  Args:
    module: with restored weights.

  Raises:
    UserError: the model has operations that LiteRT does not have.
  """
  images = tf.TensorSpec([1, *module.prepared_size, 3], name="images")
  function = tf.function(module.serve_prepared).get_concrete_function(images)
  with tempfile.TemporaryDirectory() as directory:
    # The converter would save the functions itself, each with its gradients, which takes minutes.
    save(directory, module, {"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(directory)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
      return converter.convert()
    except Exception as error:  # the converter's own class is not public
      raise UserError(
        f"the model does not convert to LiteRT: {str(error).splitlines()[0]} Implementations of "
        "attention must be 'auto' or 'blocked': pass for example --params_override="
        "task.model.backbone.sasa_resnet.implementation=blocked."
      ) from error
