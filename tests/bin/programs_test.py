"""The programs end to end, each in its own process. Few tests, as each takes half a minute."""

import io
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import exif_images
from tests.line_shapes import shape, shapes

SMALL = ",".join(
  [
    "trainer.train_steps=4",
    "trainer.steps_per_loop=2",
    "trainer.summary_interval=2",
    "trainer.checkpoint_interval=2",
    "trainer.validation_interval=4",
  ]
)


def program(name, *arguments, check=True):
  """Runs a program and returns its exit status and output."""
  done = subprocess.run(
    [sys.executable, "-m", f"sasa_tf.bin.{name}", *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=600,
  )
  assert not check or done.returncode == 0, done.stdout
  return done.returncode, done.stdout


def inputs(data):
  return (
    f"task.train_data.input_path={data}/train-*,task.validation_data.input_path={data}/validation-*"
  )


@pytest.fixture(scope="module")
def quickstart():
  """Returns the shapes of the lines of the quickstart in the README."""
  readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
  return shapes(readme[readme.index("<!-- quickstart -->") : readme.index("<!-- /quickstart -->")])


def assert_documented(lines, quickstart):
  """Asserts that the README's quickstart has lines of the same shapes."""
  missing = [line for line in lines if line.strip() and shape(line) not in quickstart]
  assert not missing, "run docs/render_quickstart.py: " + "\n".join(missing)


@pytest.fixture(scope="module")
def data(tmp_path_factory, quickstart):
  output = tmp_path_factory.mktemp("digits")
  _, printed = program("make_tfrecords", "digits", f"--output={output}", "--num_preview_images=10")
  assert_documented(printed.splitlines(), quickstart)
  return output


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
  """Trains on two replicas, on logical CPU devices."""
  model_dir = tmp_path_factory.mktemp("run")
  _, output = program(
    "train",
    "--experiment=sasa_resnet_digits",
    "--mode=train_and_eval",
    f"--model_dir={model_dir}",
    "--num_logical_cpus=2",
    f"--params_override={inputs(data)},{SMALL}",
  )
  return model_dir, output


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory, quickstart):
  model_dir, _ = trained
  output_dir = tmp_path_factory.mktemp("export")
  _, output = program(
    "export",
    f"--model_dir={model_dir}",
    f"--output_dir={output_dir}",
    "--format=saved_model,litert,keras",
  )
  lines = output[output.index("exported ") :].splitlines()
  assert lines[0].startswith(f"exported {model_dir}/best_ckpt/")
  assert lines[1] == "verified on 8 images of task.validation_data"
  rows = {line.split()[0]: line for line in lines[3:7]}
  assert list(rows) == ["format", "saved_model", "litert", "keras"]
  assert all("8/8 top classes" in rows[name] for name in ("saved_model", "litert"))
  assert "outputs within" in rows["keras"] and rows["keras"].endswith("8 images")
  assert lines[8] == f"model card  {output_dir}/model_card.md"
  assert lines[9].startswith("next        python -m sasa_tf.bin.predict --saved_model=")
  assert len(lines) == 10, output  # the converters print nothing
  assert_documented([*lines[:5], *lines[7:]], quickstart)
  card = (output_dir / "model_card.md").read_text()
  assert "saved_model verified with TensorFlow" in card and "* classes: 10: 0, 1, 2" in card
  return output_dir / "saved_model"


def test_training_reports_topology_progress_and_results(trained, quickstart):
  model_dir, output = trained
  # Without what TensorFlow logs at the level of the tests.
  lines = [line for line in output.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]
  assert lines[0].startswith("MirroredStrategy, ")
  assert_documented(lines[1:], quickstart)
  assert "MirroredStrategy, 1 host, 2 replicas, batch" in output
  assert "train step 4/4 (100%)" in output and "memory" in output
  assert "evaluation at step 4: accuracy" in output
  for line in ("checkpoint to export", "TensorBoard log", "next"):
    assert line in output
  assert tf.train.latest_checkpoint(str(model_dir)).endswith("ckpt-4")
  assert tf.train.latest_checkpoint(str(model_dir / "best_ckpt"))
  assert list((model_dir / "train").glob("events.out.tfevents.*"))
  assert json.loads((model_dir / "run.json").read_text())["experiment"] == "sasa_resnet_digits"
  assert "Traceback" not in output


def test_saved_model_matches_the_evaluated_probabilities(exported, data, trained):
  from official.core import task_factory

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import experiment, results

  model_dir, _ = trained
  params = experiment.load_trained_experiment(str(model_dir), None)
  task = task_factory.get_task(params.task)
  model = task.build_model()
  checkpoint = results.best_checkpoint(str(model_dir), params)
  tf.train.Checkpoint(model=model).read(checkpoint).expect_partial()
  images, _ = next(iter(task.build_inputs(params.task.validation_data)))
  expected = tf.nn.softmax(model(images, training=False)).numpy()

  records = list(tf.data.TFRecordDataset(sorted(map(str, data.glob("validation-*")))))
  examples = [tf.train.Example.FromString(record.numpy()) for record in records]
  encoded = [e.features.feature["image/encoded"].bytes_list.value[0] for e in examples]
  served = tf.saved_model.load(str(exported)).signatures
  by_bytes = served["image_bytes"](image_bytes=tf.constant(encoded))["probs"].numpy()
  by_example = served["tf_example"](example_bytes=tf.stack(records))["probs"].numpy()
  decoded = tf.stack([tf.io.decode_image(e, channels=3) for e in encoded])
  by_tensor = served["serving_default"](images=decoded)["probs"].numpy()
  np.testing.assert_allclose(by_bytes, by_example, atol=1e-6)
  np.testing.assert_allclose(by_bytes, by_tensor, atol=1e-6)
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  runner = interpreter.Interpreter(str(exported.parent / "model.tflite")).get_signature_runner()
  by_litert = [runner(images=image[None].numpy().astype(np.float32))["probs"] for image in decoded]
  np.testing.assert_allclose(np.concatenate(by_litert), by_tensor, atol=1e-5)
  # The reader interleaves the files, so compare rows without order.
  distance = np.abs(expected[:, None] - by_bytes[None]).max(axis=-1).min(axis=1)
  assert distance.max() < 1e-5


def test_encoded_images_are_decoded_as_they_are_displayed(exported, data):
  digit = Image.open(sorted((data / "preview_images").glob("*.png"))[0]).convert("RGB")
  pixels = np.asarray(digit)
  files = {
    "png": exif_images.encode(pixels, 1, "PNG"),
    "turned": exif_images.encode(np.rot90(pixels), 6, "PNG"),
    "webp": exif_images.encode(np.rot90(pixels, -1), 8, "WEBP"),
  }
  content = io.BytesIO()
  digit.save(content, "GIF", save_all=True, append_images=[digit.rotate(180)])
  files["gif"] = content.getvalue()
  served = tf.saved_model.load(str(exported)).signatures["image_bytes"]
  probs = dict(zip(files, served(image_bytes=[*files.values()])["probs"].numpy(), strict=True))
  for name in files:
    np.testing.assert_allclose(probs[name], probs["png"], atol=1e-6, err_msg=name)
  stored = served(image_bytes=[exif_images.encode(np.rot90(pixels), 1, "PNG")])["probs"].numpy()
  assert np.abs(stored - probs["png"]).max() > 1e-4


def test_predict_prints_names_and_probabilities(exported, data):
  images = sorted((data / "preview_images").glob("*.png"))[:2]
  _, output = program("predict", f"--saved_model={exported}", "--top_k=10", *images)
  lines = output.splitlines()
  for image in images:
    start = lines.index(str(image)) + 1
    rows = [line.split() for line in lines[start : start + 10]]
    assert {row[1] for row in rows} == set("0123456789")
    probabilities = [float(row[0].rstrip("%")) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert abs(sum(probabilities) - 100) < 1


def test_attention_maps_of_a_training(trained, data, tmp_path):
  images = sorted((data / "preview_images").glob("*.png"))[:2]
  page = tmp_path / "report.html"
  _, output = program("attention_maps", f"--model_dir={trained[0]}", f"--output={page}", *images)
  assert output.splitlines()[-1] == f"wrote {page}"
  text = page.read_text()
  assert all(image.name in text for image in images)
  assert text.count('"label":"Stage ') == 8 and len(text) < 1e6


def test_serving_errors(exported, tmp_path):
  from sasa_tf.errors import UserError
  from sasa_tf.serving.clients.classification_client import classify
  from sasa_tf.serving.clients.client import predict_all
  from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel

  with pytest.raises(UserError, match="is not a SavedModel"):
    EncodedImageModel.from_saved_model(str(tmp_path))
  with pytest.raises(UserError, match="is a remote address; expected a local directory"):
    EncodedImageModel.from_saved_model("gs://bucket/model")
  (tmp_path / "saved_model").mkdir()
  (tmp_path / "saved_model" / "saved_model.pb").touch()
  with pytest.raises(UserError, match=f"It holds {tmp_path}/saved_model: pass that"):
    EncodedImageModel.from_saved_model(str(tmp_path))
  model = EncodedImageModel.from_saved_model(str(exported))
  with pytest.raises(UserError, match="No such file"):
    classify(model, str(tmp_path / "missing.png"), top_k=3)
  (tmp_path / "text.png").write_text("not an image")
  with pytest.raises(UserError, match=r"cannot be decoded: .* or WebP image\.$"):
    classify(model, str(tmp_path / "text.png"), top_k=3)
  (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
  with pytest.raises(UserError, match=r"cannot be decoded.* TensorFlow: .*PNG[^\n]*$"):
    classify(model, str(tmp_path / "corrupt.png"), top_k=3)
  with pytest.raises(UserError, match="--output is for detectors"):
    list(predict_all(model, ["a.png"], output=str(tmp_path)))


def test_resuming_with_a_different_model_raises(trained, data):
  model_dir, _ = trained
  before = sorted(path.name for path in pathlib.Path(model_dir).iterdir())
  status, output = program(
    "train",
    "--experiment=sasa_resnet_digits",
    "--mode=train",
    f"--model_dir={model_dir}",
    f"--params_override={inputs(data)},{SMALL},task.model.num_classes=11",
    check=False,
  )
  assert status == 2
  assert "another model" in output and "num_classes: 10 in the checkpoint, 11 in this run" in output
  assert "Traceback" not in output
  assert sorted(path.name for path in pathlib.Path(model_dir).iterdir()) == before


def test_invalid_configuration_ends_before_anything_starts(tmp_path):
  status, output = program(
    "train",
    "--experiment=sasa_resnet_digits",
    "--mode=train",
    f"--model_dir={tmp_path}/run",
    "--params_override=trainer.train_steps=1.5,task.model.backbone.sasa_resnet.kernel_size=2,"
    "trainer.foo=1,task.train_data.global_batch_size=100000",
    check=False,
  )
  assert status == 2
  assert "Traceback" not in output and "\n\n" not in output
  assert "error: the configuration has" in output
  for key in (
    "trainer.train_steps=1.5",
    "sasa_resnet.kernel_size=2",
    "no key 'foo' in trainer",
  ):
    assert key in output
  assert not (tmp_path / "run").exists()


def test_label_out_of_range_stops_the_training(data, tmp_path):
  # Without labels.txt, whose number of lines would end the program earlier.
  records = tmp_path / "records"
  records.mkdir()
  for file in data.glob("*.tfrecord"):
    (records / file.name).symlink_to(file)
  status, output = program(
    "train",
    "--experiment=sasa_resnet_digits",
    "--mode=train",
    f"--model_dir={tmp_path}/run",
    f"--params_override={inputs(records)},{SMALL},task.model.num_classes=9,task.evaluation.top_k=2,"
    "task.model.backbone.sasa_resnet.attention_groups=[]",  # the fastest to trace
    check=False,
  )
  assert status == 2
  assert "label outside of the model classes: expected 0 to 8" in output
  assert "Traceback" not in output
