"""Conversion to full-integer LiteRT models, for tests."""

import numpy as np
import tensorflow as tf

from sasa_tf.ops import tracing_for_export


def int8_model(function, examples):
  """Converts a function of one image to LiteRT with int8 operations only."""
  with tracing_for_export():
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(examples[0].shape))
  converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: ([example] for example in examples)
  converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
  return converter.convert()


def run_in_litert(content, images):
  """Returns the outputs of a LiteRT model of one image, for each of the images."""
  interpreter = tf.lite.Interpreter(model_content=content)
  interpreter.allocate_tensors()
  source, result = (
    details[0]["index"]
    for details in (interpreter.get_input_details(), interpreter.get_output_details())
  )
  outputs = []
  for image in images:
    interpreter.set_tensor(source, image)
    interpreter.invoke()
    outputs.append(interpreter.get_tensor(result))
  return np.stack(outputs)
