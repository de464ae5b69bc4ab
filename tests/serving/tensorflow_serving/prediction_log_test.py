"""Request logs have the encoding of tensorflow-serving-api."""

import pytest
import tensorflow as tf

from sasa_tf.serving.tensorflow_serving import prediction_log
from tests.serving.example_protos import image_example

TENSOR = tf.make_tensor_proto(127, tf.uint8, [2, 3])
EXAMPLE = image_example(b"image")
PREDICT = prediction_log.predict_log("serving_default", {"images": TENSOR.SerializeToString()})
CLASSIFY = prediction_log.classify_log("classify", [EXAMPLE] * 2)


def test_encoding():
  """Compares with what tensorflow-serving-api 2.20 writes, also where it is not installed."""
  assert PREDICT == (
    b"20\n.\n\x11\x1a\x0fserving_default\x12\x19\n\x06images\x12\x0f\x08\x04\x12\x08\x12\x02\x08\x02\x12\x02\x08\x03:\x01\x7f"
  )
  assert CLASSIFY == (
    b"\x12R\nP\n\n\x1a\x08classify\x12B\n@\n\x1e\n\x1c\n\x1a\n\rimage/encoded\x12\t\n\x07\n\x05image\n\x1e\n\x1c\n\x1a\n\rimage/encoded\x12\t\n\x07\n\x05image"
  )


def test_messages_of_the_api_have_the_same_content():
  apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
  predict = apis.PredictionLog.FromString(PREDICT).predict_log.request
  assert predict.model_spec.signature_name == "serving_default"
  assert {**predict.inputs} == {"images": TENSOR}
  classify = apis.PredictionLog.FromString(CLASSIFY).classify_log.request
  assert classify.model_spec.signature_name == "classify"
  assert [each.SerializeToString() for each in classify.input.example_list.examples] == (
    [EXAMPLE] * 2
  )
  for log in (PREDICT, CLASSIFY):
    assert apis.PredictionLog.FromString(log).SerializeToString() == log
