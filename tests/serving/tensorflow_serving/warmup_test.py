"""Warm-up requests fit the signatures of the SavedModel that they are beside."""

import pytest
import tensorflow as tf

from sasa_tf.ops import tracing_for_export
from sasa_tf.serving.tensorflow_serving.method_names import set_method_names
from sasa_tf.serving.tensorflow_serving.warmup import write_warmup_requests
from tests.serving.example_protos import image_example
from tests.serving.small_classifier import NAMES, SIZE, build_module, params_of
from tests.serving.small_detector import random_images


@pytest.fixture(scope="module", params=[None, 3])
def saved(request, tmp_path_factory):
  """Returns a SavedModel with all signatures, its warm-up requests and its batch size."""
  module = build_module(
    params_of(width_multiplier=0.0625, attention_groups=[4]), batch_size=request.param
  )
  kinds = {kind: kind for kind in module.signature_kinds(NAMES)}
  assert [*kinds] == ["image_tensor", "image_bytes", "tf_example", "prepared", "classify"]
  with tracing_for_export():
    signatures = module.get_inference_signatures(kinds, NAMES)
  folder = tmp_path_factory.mktemp("saved")
  servable = tf.Module()
  servable.weights = module.model.variables
  tf.saved_model.save(servable, str(folder), signatures=signatures)
  set_method_names(folder, {"classify": tf.saved_model.CLASSIFY_METHOD_NAME})
  write_warmup_requests(
    folder / "requests",
    signatures,
    image_size=(SIZE, SIZE),
    image_key=module.image_key,
    requests=2,
  )
  return folder, request.param or 1


def test_requests_are_those_of_the_signatures(saved):
  apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
  folder, batch = saved
  served = tf.saved_model.load(str(folder)).signatures
  names = []
  for record in tf.data.TFRecordDataset(str(folder / "requests")):
    log = apis.PredictionLog.FromString(record.numpy())
    if log.HasField("classify_log"):
      request = log.classify_log.request
      examples = request.input.example_list.examples
      inputs = {"inputs": tf.constant([each.SerializeToString() for each in examples])}
    else:
      request = log.predict_log.request
      inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
    names.append(request.model_spec.signature_name)
    for value in served[names[-1]](**inputs).values():
      assert value.shape == (batch, len(NAMES))
  assert names == [name for name in served for _ in range(2)]


def test_requests_are_small(saved):
  """A tensor of one value has one element."""
  folder, batch = saved
  records = list(tf.data.TFRecordDataset(str(folder / "requests")))
  assert len(records) == 10
  assert max(len(record.numpy()) for record in records) < 1000 * batch


def test_classify_returns_names_by_score(saved):
  folder, batch = saved
  served = tf.saved_model.load(str(folder)).signatures
  encoded = tf.io.encode_png(random_images([(40, 50)])[0]).numpy()
  found = served["classify"](inputs=tf.constant([image_example(encoded)] * batch))
  probs = served["image_bytes"](image_bytes=tf.constant([encoded] * batch))["probs"][0].numpy()
  names, scores = found["classes"][0].numpy().tolist(), found["scores"][0].numpy()
  assert sorted(names) == sorted(name.encode() for name in NAMES)
  assert (scores[:-1] >= scores[1:]).all() and scores[0] > scores[-1]
  assert {name.decode(): score for name, score in zip(names, scores, strict=True)} == (
    pytest.approx(dict(zip(NAMES, probs, strict=True)), abs=1e-5)
  )


def test_methods_are_those_of_tensorflow_serving(saved):
  folder, _ = saved
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    methods = {name: each.method_name for name, each in loaded.signature_def.items()}
    classify = loaded.signature_def["classify"]
  assert methods.pop("classify") == "tensorflow/serving/classify"
  assert set(methods.values()) - {""} == {"tensorflow/serving/predict"}
  assert set(classify.inputs) == {"inputs"} and set(classify.outputs) == {"classes", "scores"}
