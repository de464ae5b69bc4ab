"""Whether a graph is built in order to be exported, and so to run where this library may not be."""

from __future__ import annotations

import sys

import tensorflow as tf

# Modules that trace functions for a SavedModel, LiteRT or ONNX. TensorFlow's own save context
# begins only after Keras and Model Garden have traced what they save.
_EXPORTERS = (
  "keras.src.export",
  "official.core.export_base",
  "sasa_tf.serving",
  "tensorflow.lite",
  "tensorflow.python.saved_model",
  "tf2onnx",
  "tf_keras.src.export",
  "tf_keras.src.saving",
)


def is_tracing_for_export() -> bool:
  """Whether a function is being traced on behalf of a module that exports functions."""
  if tf.executing_eagerly():
    return False
  frame = sys._getframe()
  while frame is not None:
    if frame.f_globals.get("__name__", "").startswith(_EXPORTERS):
      return True
    frame = frame.f_back
  return False
