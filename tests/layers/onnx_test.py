"""Keras models with the layers convert to ONNX and run in ONNX Runtime."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops import tracing_for_export
from tests.layers.bindings import both_bindings
from tests.layers.convertible_models import LAYERS, convertible_model, random_images


@both_bindings
@pytest.mark.parametrize("name", LAYERS)
def test_converts_to_onnx(keras_api, name):
  tf2onnx = pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
  onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
  model = convertible_model(keras_api, name)
  signature = [tf.TensorSpec(model.input_shape, tf.float32, "images")]
  with tracing_for_export():
    converted, _ = tf2onnx.convert.from_function(
      tf.function(lambda images: model(images, training=False)), signature, opset=17
    )
  assert {node.domain for node in converted.graph.node} <= {"", "ai.onnx"}
  session = onnxruntime.InferenceSession(converted.SerializeToString())
  images = random_images(model, 3)
  (received,) = session.run(None, {"images": images})
  np.testing.assert_allclose(received, model(images), atol=1e-5, rtol=1e-5)
