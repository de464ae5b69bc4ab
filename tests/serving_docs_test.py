"""The clients of docs/serving.md run, against servers with the protocol of TensorFlow Serving."""

import base64
import http.server
import json
import pathlib
import re
import threading

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops import tracing_for_export
from sasa_tf.serving.modules.detection_module import DetectionModule
from tests.serving import small_classifier, small_detector

DOCS = pathlib.Path(__file__).parent.parent / "docs"
SNIPPETS = dict(
  re.findall(
    r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", (DOCS / "serving.md").read_text(), re.S
  )
)
DTYPES = {"TYPE_UINT8": tf.uint8, "TYPE_FP32": tf.float32, "TYPE_INT32": tf.int32}


def save(module, path, names):
  with tracing_for_export():
    signatures = module.get_inference_signatures(
      {kind: kind for kind in module.signature_kinds(names)}, names
    )
  servable = tf.Module()
  servable.weights = module.model.variables
  tf.saved_model.save(servable, str(path), signatures=signatures)
  return tf.saved_model.load(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Returns a working directory with an image."""
  folder = tmp_path_factory.mktemp("work")
  (image,) = small_detector.random_images([(90, 120)])
  (folder / "image.jpg").write_bytes(tf.io.encode_jpeg(image).numpy())
  return folder


@pytest.fixture(scope="module")
def models(folder):
  """Returns the models that the snippets name."""
  classifier = small_classifier.build_module(
    small_classifier.params_of(width_multiplier=0.0625, attention_groups=[4])
  )
  params = small_detector.params_of()
  _, model = small_detector.build(params)
  size = [small_detector.SIZE] * 2
  detector = DetectionModule(params, batch_size=None, input_image_size=size, model=model)
  return {
    "digits": save(classifier, folder / "runs/digits/exported/saved_model", small_classifier.NAMES),
    "scenes": save(detector, folder / "runs/scenes/exported/saved_model", small_detector.NAMES),
  }


@pytest.fixture
def run(models, folder, monkeypatch, capsys):
  """Returns a function that runs a snippet and returns its variables and output."""
  monkeypatch.chdir(folder)

  def run(name, **replacements):
    code = SNIPPETS[name]
    for old, new in replacements.items():
      assert old in code
      code = code.replace(old, new)
    variables = {}
    exec(compile(code, f"docs/serving.md {name}", "exec"), variables)
    return variables, capsys.readouterr().out

  return run


def test_python(run, models):
  found, printed = run("python")
  best = int(np.argmax(found["probs"]))
  name, score = printed.rsplit(maxsplit=1)
  assert name == small_classifier.NAMES[best]
  assert float(score) == pytest.approx(float(found["probs"][0, best]), abs=1e-5)


class RestServer(http.server.BaseHTTPRequestHandler):
  """TensorFlow Serving's REST protocol, for the requests of the snippets."""

  def do_POST(self):
    name, method = re.fullmatch(r"/v1/models/(\w+):(\w+)", self.path).groups()
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    signature = self.server.models[name].signatures[body["signature_name"]]
    answer = {"predict": self.predict, "classify": self.classify}[method](signature, body)
    self.send_response(200)
    self.end_headers()
    self.wfile.write(json.dumps(answer).encode())

  def predict(self, signature, body):
    """Row format: {name: {"b64": ...}} in, {name: value} out."""
    inputs = {
      name: tf.constant([base64.b64decode(row[name]["b64"]) for row in body["instances"]])
      for name in body["instances"][0]
    }
    outputs = {name: values.numpy() for name, values in signature(**inputs).items()}
    rows = range(len(body["instances"]))
    return {"predictions": [{name: as_json(v[i]) for name, v in outputs.items()} for i in rows]}

  def classify(self, signature, body):
    """Features of examples in, pairs of class and score out."""
    examples = []
    for features in body["examples"]:
      example = tf.train.Example()
      for name, value in features.items():
        example.features.feature[name].bytes_list.value.append(base64.b64decode(value["b64"]))
      examples.append(example.SerializeToString())
    found = signature(inputs=tf.constant(examples))
    rows = zip(found["classes"].numpy(), found["scores"].numpy(), strict=True)
    return {
      "results": [[[as_json(c), float(s)] for c, s in zip(*row, strict=True)] for row in rows]
    }

  def log_message(self, *_):
    """Prints nothing."""


def as_json(value):
  """Returns JSON values of an output; strings are text."""
  if isinstance(value, bytes):
    return value.decode()
  if value.dtype.kind == "O":
    return [each.decode() for each in value]
  return value.tolist()


@pytest.fixture
def rest(models):
  server = http.server.HTTPServer(("localhost", 0), RestServer)
  server.models = models
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield {"localhost:8501": f"localhost:{server.server_port}"}
  server.shutdown()
  thread.join()
  server.server_close()


def test_rest_prints_names_and_boxes(run, rest, models, folder):
  found, printed = run("rest", **rest)
  content = (folder / "image.jpg").read_bytes()
  expected = models["scenes"].signatures["image_bytes"](image_bytes=tf.constant([content]))
  number = int(expected["num_detections"][0])
  lines = printed.splitlines()
  assert len(lines) == number > 5
  label = int(expected["detection_classes"][0, 0])
  assert lines[0].split()[0] == small_detector.NAMES[label]
  np.testing.assert_allclose(
    found["found"]["detection_boxes"], expected["detection_boxes"][0], rtol=1e-5
  )


def test_rest_classify_prints_the_best_class(run, rest, models, folder):
  found, _ = run("rest_classify", **rest)
  content = (folder / "image.jpg").read_bytes()
  probs = models["digits"].signatures["image_bytes"](image_bytes=tf.constant([content]))["probs"]
  best = int(np.argmax(probs))
  name, score = found["classes"][0]
  assert name == small_classifier.NAMES[best]
  assert score == pytest.approx(float(probs[0, best]), abs=1e-5)


def test_grpc(run, models):
  grpc = pytest.importorskip("grpc")
  service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
  from concurrent import futures

  from tensorflow_serving.apis import predict_pb2

  class Servicer(service.PredictionServiceServicer):
    def Predict(self, request, context):  # noqa: N802
      signature = models[request.model_spec.name].signatures[request.model_spec.signature_name]
      (spec,) = signature.structured_input_signature[1].values()
      ((name, tensor),) = request.inputs.items()
      value = tf.constant(tf.make_ndarray(tensor))
      assert name == spec.name and value.dtype == spec.dtype
      assert spec.shape.is_compatible_with(value.shape)
      response = predict_pb2.PredictResponse()
      for key, output in signature(**{name: value}).items():
        response.outputs[key].CopyFrom(tf.make_tensor_proto(output.numpy()))
      return response

  server = grpc.server(futures.ThreadPoolExecutor(1))
  service.add_PredictionServiceServicer_to_server(Servicer(), server)
  port = server.add_insecure_port("localhost:0")
  server.start()
  try:
    found, printed = run("grpc", **{"localhost:8500": f"localhost:{port}"})
  finally:
    server.stop(None)
  assert printed == "(1, 100, 4)\n"
  assert found["boxes"].max() > 60  # pixels of the image, which is larger than the model's input


def test_litert(run, folder, models):
  pytest.importorskip("ai_edge_litert")
  converter = tf.lite.TFLiteConverter
  servable = tf.Module()
  servable.call = tf.function(
    lambda images: {"detection_scores": tf.reduce_mean(images, [1, 2])},
    input_signature=[tf.TensorSpec([1, 32, 48, 3], name="images")],
  )
  content = converter.from_concrete_functions(
    [servable.call.get_concrete_function()], servable
  ).convert()
  (folder / "runs/scenes/exported/model.tflite").write_bytes(content)
  found, _ = run("litert")
  assert found["images"].shape == (1, 32, 48, 3)
  assert found["detections"]["detection_scores"].shape == (1, 3)


def fields(text, kind):
  """Returns {name: (dtype, dims)} of the inputs or outputs of a Triton configuration."""
  (block,) = re.findall(rf"^{kind} \[(.*?)\]\s*\n(?=\w|#|output)", text, re.M | re.S)
  found = re.findall(r'name: "(\w+)", data_type: (\w+), dims: \[ ([-\d, ]*) \]', block)
  return {
    name: (DTYPES[dtype], [int(each) for each in dims.split(",")]) for name, dtype, dims in found
  }


def test_triton_configuration_fits_the_signature(models):
  text = (DOCS / "serving_examples" / "config.pbtxt").read_text()
  (name,) = re.findall(r'TF_SIGNATURE_DEF", value: \{ string_value: "(\w+)"', text)
  signature = models["scenes"].signatures[name]
  specs = signature.structured_input_signature[1]
  inputs = {
    key: (s.dtype, [-1 if n is None else n for n in s.shape[1:]]) for key, s in specs.items()
  }
  assert fields(text, "input") == inputs
  outputs = {
    key: (each.dtype, each.shape[1:].as_list() or [1])
    for key, each in signature.structured_outputs.items()
  }
  assert fields(text, "output") == outputs


def test_batching_parameters_are_those_of_tensorflow_serving():
  text = (DOCS / "serving_examples" / "batching_parameters.txt").read_text()
  lines = [line for line in text.splitlines() if not line.startswith("#")]
  names = {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}
  wrapped = [re.fullmatch(r"(\w+) \{ value: (\d+) \}", line) for line in lines]
  values = {match[1]: int(match[2]) for match in wrapped if match}
  assert set(values) == names
  sizes = [int(line.split()[1]) for line in lines if line.startswith("allowed_batch_sizes: ")]
  # The largest allowed size must be the maximum.
  assert sizes == sorted(sizes) and sizes[-1] == values["max_batch_size"]
  assert len(values) + len(sizes) == len(lines)
