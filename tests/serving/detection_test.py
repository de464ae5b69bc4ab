"""Exported detectors return the detections of the evaluation, for any image and batch size."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.data.detection import annotated_images
from sasa_tf.data.detection.boxes import AnnotatedImage
from sasa_tf.errors import UserError
from sasa_tf.serving.clients import client, detection_client
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.export import export_model, restored_module
from sasa_tf.serving.export_paths import check_export_paths
from sasa_tf.serving.formats import litert
from sasa_tf.serving.formats.format import SavedModelOptions
from sasa_tf.serving.modules.detection_module import DetectionModule
from tests.data import exif_images
from tests.serving.example_protos import image_example
from tests.serving.small_detector import NAMES, SIZE, build, params_of, random_images

# (H, W): equal to the model's input, larger, smaller and wide, tall.
SIZES = ((SIZE, SIZE), (150, 200), (20, 40), (90, 31))
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


@pytest.fixture(scope="module")
def images():
  return random_images(SIZES)


@pytest.fixture(scope="module")
def encoded(images):
  return [tf.io.encode_png(image).numpy() for image in images]


@pytest.fixture(scope="module")
def examples(encoded):
  return [
    annotated_images.detection_example(
      content, AnnotatedImage(f"{i}.png", f"{i}.png", i, f"{i}.png"), NAMES
    ).serialized
    for i, content in enumerate(encoded, start=1)
  ]


@pytest.fixture(scope="module")
def evaluated(examples, tmp_path_factory):
  """Returns experiment, checkpoint and the evaluation's detections in pixels of each image."""
  folder = tmp_path_factory.mktemp("evaluated")
  with tf.io.TFRecordWriter(str(folder / "a")) as writer:
    for example in examples:
      writer.write(example)
  params = params_of(folder / "a")
  task, model = build(params)
  checkpoint = tf.train.Checkpoint(model=model).write(str(folder / "ckpt"))
  inputs, labels = next(iter(task.build_inputs(params.task.validation_data)))
  info = labels["image_info"]
  found = model(inputs, image_shape=info[:, 1], anchor_boxes=labels["anchor_boxes"], training=False)
  found = {name: found[name].numpy() for name in OUTPUTS}
  found["detection_boxes"] /= np.tile(info[:, 2:3], [1, 1, 2])
  limits = np.tile(np.array(SIZES), [1, 2])[:, None]
  found["detection_boxes"] = found["detection_boxes"].clip(0, limits)
  exists = np.arange(100) < found["num_detections"][:, None]
  found["detection_classes"] *= exists  # Model Garden leaves arbitrary classes there
  assert found["num_detections"].min() > 5
  assert set(found["detection_classes"][exists]) == {1, 2, 3}
  assert found["detection_scores"][exists].std() > 0.1
  return params, checkpoint, found


@pytest.fixture(scope="module")
def exported(evaluated, tmp_path_factory):
  """Exports SavedModels with dynamic batch size and batch size 3, and a LiteRT file."""
  params, checkpoint, _ = evaluated
  folder = tmp_path_factory.mktemp("exported")
  arguments = {"weights": checkpoint, "class_names": NAMES}
  export_model(params, outputs={"saved_model": folder / "any"}, **arguments)
  export_model(
    params,
    outputs={"saved_model": folder / "three", "litert": folder / "a.tflite"},
    saved_model=SavedModelOptions(input_type="image_bytes"),
    batch_size=3,
    **arguments,
  )
  assert sorted(path.name for path in folder.iterdir()) == ["a.tflite", "any", "three"]
  return folder


@pytest.fixture(scope="module")
def served(exported):
  return tf.saved_model.load(str(exported / "any")).signatures


def assert_found(outputs, expected, rows=slice(None)):
  assert set(outputs) == set(OUTPUTS)
  outputs = {name: outputs[name].numpy() for name in OUTPUTS}
  for name in ("num_detections", "detection_classes"):
    assert outputs[name].dtype == np.int32
    np.testing.assert_array_equal(outputs[name], expected[name][rows], err_msg=name)
  np.testing.assert_allclose(
    outputs["detection_scores"], expected["detection_scores"][rows], atol=1e-5
  )
  np.testing.assert_allclose(
    outputs["detection_boxes"], expected["detection_boxes"][rows], atol=0.02, rtol=1e-4
  )


def test_encoded_images_of_different_sizes_in_one_batch(served, encoded, evaluated):
  assert_found(served["image_bytes"](image_bytes=tf.constant(encoded)), evaluated[2])


def test_encoded_images_are_turned_upright(served, images):
  """The boxes are those of the displayed image, which is stored turned, and in other formats."""
  (upright,) = (image for image in images if image.shape[:2] == (150, 200))
  expected = served["image_bytes"](image_bytes=[tf.io.encode_png(upright).numpy()])
  assert expected["num_detections"][0] > 5
  turned = np.rot90(upright)  # orientation 6 says to turn it back
  encoded = [
    exif_images.encode(turned, 6, "PNG"),
    exif_images.encode(turned, 6, "WEBP"),
    exif_images.encode(upright[::-1], 4, "PNG"),
  ]
  wrapped = [image_example(each) for each in encoded]
  for signature, inputs in (("image_bytes", encoded), ("tf_example", wrapped)):
    found = served[signature](tf.constant(inputs))
    for name in OUTPUTS:
      np.testing.assert_allclose(
        found[name], np.repeat(expected[name], 3, axis=0), atol=1e-4, err_msg=name
      )


def test_serialized_examples(served, examples, evaluated):
  assert_found(served["tf_example"](example_bytes=tf.constant(examples)), evaluated[2])


@pytest.mark.parametrize("index", range(len(SIZES)))
def test_decoded_images(served, images, evaluated, index):
  outputs = served["serving_default"](images=tf.constant(images[index])[None])
  assert_found(outputs, evaluated[2], slice(index, index + 1))


# The second is a line, whose height would round to 0 in the model's input.
@pytest.mark.parametrize("size", [(2500, 4000), (1, 500)])
def test_boxes_are_inside_images_of_extreme_sizes(served, size):
  (image,) = random_images([size])
  outputs = served["serving_default"](images=tf.constant(image)[None])
  boxes = outputs["detection_boxes"][0, : outputs["num_detections"][0]].numpy()
  assert (boxes >= 0).all() and (boxes <= [*size, *size]).all()
  assert size[0] == 1 or boxes[:, 3].max() > size[1] / 2


def test_fixed_batch_size(exported, encoded, evaluated):
  served = tf.saved_model.load(str(exported / "three")).signatures
  assert served["image_tensor"].structured_input_signature[1]["images"].shape[0] == 3
  outputs = served["serving_default"](image_bytes=tf.constant(encoded[:3]))
  assert_found(outputs, evaluated[2], slice(3))


def test_graph_has_stock_operations_only(exported):
  proto = tf.io.gfile.GFile(str(exported / "any" / "saved_model.pb"), "rb").read()
  assert b"XlaCallModule" not in proto and b"ExtractImagePatches" not in proto


def test_client_lists_and_draws_detections(exported, encoded, evaluated, tmp_path):
  expected = evaluated[2]
  paths = [tmp_path / folder / "a.png" for folder in "xy"]
  for path, content in zip(paths, encoded[1:3], strict=True):
    path.parent.mkdir()
    path.write_bytes(content)
  model = EncodedImageModel.from_saved_model(str(exported / "three"))  # filled with the same image
  found = detection_client.detect(model, str(paths[0]), score_threshold=0.6)
  count = int((expected["detection_scores"][1] >= 0.6).sum())
  assert 0 < len(found) == count < 100
  first = found[0]
  assert first.name == NAMES[first.label] == NAMES[expected["detection_classes"][1, 0]]
  ymin, xmin, ymax, xmax = expected["detection_boxes"][1, 0]
  np.testing.assert_allclose(first.box, (xmin, ymin, xmax, ymax), atol=0.02)

  lines = list(
    detection_client.detection_lines(model, [*map(str, paths)], 0.6, str(tmp_path / "drawn"))
  )
  assert lines[0].startswith(f"{paths[0]}: {count} with a score of 60% or more, drawn to ")
  assert lines[2].split()[:2] == [f"{first.score:.1%}", first.name]
  drawn = [tf.io.decode_png((tmp_path / "drawn" / n).read_bytes()) for n in ("a.png", "a_2.png")]
  assert [image.shape[:2] for image in drawn] == [(600, 800), (320, 640)]  # enlarged
  turned = exif_images.encode(np.rot90(tf.io.decode_png(encoded[1])), 6, "PNG")
  paths[0].write_bytes(turned)
  assert detection_client.detect(model, str(paths[0]), score_threshold=0.6) == found
  list(detection_client.detection_lines(model, [str(paths[0])], 0.6, str(tmp_path / "turned")))
  np.testing.assert_array_equal(
    drawn[0], tf.io.decode_png((tmp_path / "turned" / "a.png").read_bytes())
  )
  assert list(detection_client.detection_lines(model, [str(paths[0])], 1.0, None)) == [
    f"{paths[0]}: 0 with a score of 100% or more"
  ]
  with pytest.raises(UserError, match="--top_k is for classifiers"):
    next(client.predict_all(model, [str(paths[0])], top_k=2))


def test_litert_matches_saved_model(exported, images, evaluated):
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  runner = interpreter.Interpreter(str(exported / "a.tflite")).get_signature_runner()
  # The first image has the size of the model's input.
  outputs = runner(images=images[0][None].astype(np.float32))
  outputs = {name: tf.constant(value) for name, value in outputs.items()}
  assert_found(outputs, evaluated[2], slice(1))


@pytest.mark.slow
def test_litert_with_full_attention_matches_saved_model():
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  params = params_of(
    backbone={"sasa_resnet": {"stem": "attention", "attention_groups": [1, 2, 3, 4]}},
    head={"num_convs": 1},
  )
  _, model = build(params)
  module = DetectionModule(params, batch_size=1, input_image_size=[SIZE, SIZE], model=model)
  content = litert.convert(module)
  runner = interpreter.Interpreter(model_content=content).get_signature_runner()
  (image,) = random_images([(SIZE, SIZE)])
  expected = {name: value.numpy() for name, value in module.serve(image[None]).items()}
  assert expected["num_detections"][0] > 5
  outputs = runner(images=image[None].astype(np.float32))
  assert_found({name: tf.constant(value) for name, value in outputs.items()}, expected)


def test_export_recognizes_what_it_wrote(exported, evaluated):
  """Otherwise --overwrite would reject it."""
  for name in ("any", "three"):
    check_export_paths(
      {"saved_model": exported / name, "litert": exported / "a.tflite"},
      overwrite=True,
      inputs={"weights": evaluated[1]},
    )
  (exported / "any" / "notes.txt").write_text("")
  try:
    with pytest.raises(UserError, match=r"it also holds notes\.txt"):
      check_export_paths({"saved_model": exported / "any"}, overwrite=True)
  finally:
    (exported / "any" / "notes.txt").unlink()


def test_failed_export_leaves_no_files(evaluated, tmp_path, monkeypatch):
  params, checkpoint, _ = evaluated
  target = tmp_path / "exported" / "a"
  arguments = {
    "class_names": NAMES,
    "outputs": {"saved_model": target},
    "saved_model": SavedModelOptions(signatures=("image_tensor",)),  # each takes seconds to trace
  }
  with pytest.raises(UserError, match="num_classes is 4, but the label file has 2 class"):
    export_model(params, weights=checkpoint, **{**arguments, "class_names": ["a", "b"]})
  other = tf.train.Checkpoint(model=tf.train.Checkpoint(weight=tf.Variable(1.0)))
  with pytest.raises(UserError, match="does not hold the weights"):
    export_model(params, weights=other.write(str(tmp_path / "other")), **arguments)

  converter = mock.Mock()
  converter.convert.side_effect = ValueError("an unsupported operation.")
  monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda _: converter)
  with pytest.raises(UserError, match=r"LiteRT: an unsupported operation.*implementation=blocked"):
    outputs = {"saved_model": target, "litert": target.with_name("b")}
    export_model(params, weights=checkpoint, **{**arguments, "outputs": outputs})
  assert not target.parent.exists() or not list(target.parent.iterdir())
  target.mkdir(parents=True)
  with pytest.raises(UserError, match=r"exported/a exists.*--overwrite"):
    export_model(params, weights=checkpoint, **arguments)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"apply_nms": False}, "apply non-maximum suppression.*apply_nms=False"),
    ({"nms_version": "tflite"}, "nms_version='tflite'"),
    ({"nms_version": "v1"}, "fixed batch size.*--batch_size"),
  ],
)
def test_unsupported_nms_configuration_raises(evaluated, tmp_path, change, message):
  params = params_of(detection_generator=change)
  params.task.export_config.batched_nms = False
  with pytest.raises(UserError, match=message):
    export_model(
      params,
      weights=evaluated[1],
      outputs={"saved_model": tmp_path / "a"},
      class_names=None,
    )


@pytest.mark.parametrize("nms_version", ["v1", "v2", "v3", "batched"])
def test_configured_suppression_is_possible(evaluated, images, nms_version):
  """For v1 and v2, the default is the batched operation, with the same detections."""
  params, checkpoint, expected = evaluated
  params = params_of(detection_generator={"nms_version": nms_version})
  params.task.export_config.batched_nms = False
  module = restored_module(params, checkpoint, batch_size=1)
  found = tf.function(module.serve)(images[0][None])
  operations = {
    op.type
    for op in tf.function(module.serve)
    .get_concrete_function(tf.TensorSpec([1, None, None, 3], tf.uint8))
    .graph.get_operations()
  }
  assert ("CombinedNonMaxSuppression" in operations) == (nms_version == "batched")
  if nms_version == "v3":  # an approximation
    assert found["num_detections"][0] > 5
  else:
    assert_found(found, expected, slice(1))


def test_prepared_images_of_any_number(evaluated, images, served):
  """The formats without TensorFlow have the detections of the signature."""
  params, checkpoint, expected = evaluated
  module = restored_module(params, checkpoint)
  (own,) = (image for image in images if image.shape[0] == SIZE)
  other = random_images([(SIZE, SIZE)], seed=3)[0]
  batch = np.stack([own, other, own]).astype(np.float32)
  prepared = tf.function(
    module.serve_prepared, input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3])]
  )
  assert_found(served["prepared"](images=batch[:1]), expected, slice(1))
  for number in (1, 3):
    found = prepared(batch[:number])
    named = served["prepared"](images=batch[:number])
    assert_found(found, {name: values.numpy() for name, values in named.items()})


def test_names_of_classes(served, encoded, evaluated):
  found = served["detect"](image_bytes=tf.constant(encoded))
  expected = np.array(["", *NAMES[1:]])[evaluated[2]["detection_classes"]]
  names = found.pop("detection_class_names").numpy().astype(str)
  np.testing.assert_array_equal(names, expected)
  assert_found(found, evaluated[2])


def test_empty_batch_has_no_detections(served):
  for name, inputs in {
    "image_tensor": tf.zeros([0, 40, 50, 3], tf.uint8),
    "image_bytes": tf.zeros([0], tf.string),
    "prepared": tf.zeros([0, SIZE, SIZE, 3]),
  }.items():
    found = served[name](inputs)
    assert found["detection_boxes"].shape == (0, 100, 4)
    assert found["num_detections"].shape == (0,)
