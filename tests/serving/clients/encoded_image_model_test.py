"""Errors of the client that runs SavedModels on image files."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.clients.unreadable_images import UnreadableImageError
from tests.data import image_bombs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Returns a SavedModel that crops 7/8 of the shorter side, which is nothing of one pixel."""

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
  def serve(image_bytes):
    image = tf.io.decode_image(image_bytes[0], channels=3, expand_animations=False)
    side = tf.cast(0.875 * tf.cast(tf.reduce_min(tf.shape(image)[:2]), tf.float32), tf.int32)
    image = tf.image.resize(tf.ensure_shape(image, [None, None, 3])[:side, :side], [2, 2])
    return {"probs": tf.reshape(image, [1, -1])}

  path = tmp_path_factory.mktemp("model")
  tf.saved_model.save(tf.Module(), str(path), signatures={"image_bytes": serve})
  (path / "assets.extra").mkdir()
  (path / "assets.extra/labels.txt").write_text("one\ntwo\n")
  return EncodedImageModel.from_saved_model(str(path))


def write_png(path, height, width):
  path.write_bytes(tf.io.encode_png(np.zeros([height, width, 3], np.uint8)).numpy())
  return str(path)


def test_outputs_of_an_image(model, tmp_path):
  assert model.run(write_png(tmp_path / "image.png", 4, 4))["probs"].shape == (12,)


def test_missing_class_names_are_reported(model):
  assert model.name_of(1) == "two"
  with pytest.raises(UserError, match=r"has 2 class names .*labels\.txt\), but the class 2\."):
    model.name_of(2)


def test_image_that_is_too_narrow_to_crop_is_named_with_its_size(model, tmp_path):
  with pytest.raises(UnreadableImageError, match=r"9 x 1 pixels.*at least 2 pixels per side\.$"):
    model.run(write_png(tmp_path / "narrow.png", 1, 9))


def test_file_that_is_no_image_is_named(model, tmp_path):
  (tmp_path / "text.png").write_text("not an image")
  with pytest.raises(UnreadableImageError, match=r"text\.png cannot be decoded: expected a JPEG"):
    model.run(str(tmp_path / "text.png"))


def test_pipes_and_bombs_are_not_read(model, tmp_path):
  os.mkfifo(tmp_path / "pipe.png")
  with pytest.raises(UnreadableImageError, match=r"pipe\.png: not a regular file, but a pipe"):
    model.run(str(tmp_path / "pipe.png"))
  (tmp_path / "bomb.png").write_bytes(image_bombs.png(23_000, 23_000))
  with pytest.raises(UnreadableImageError, match=r"bomb\.png is a decompression bomb: .*smaller"):
    model.run(str(tmp_path / "bomb.png"))


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
  path.write_bytes(b"\xff\x00garbage" * 9)


@pytest.mark.parametrize(
  ("change", "file"),
  [
    (truncate, "saved_model.pb"),
    (overwrite, "saved_model.pb"),
    (lambda path: path.write_bytes(b""), "saved_model.pb"),
    (truncate, "variables/variables.data-00000-of-00001"),
    (truncate, "variables/variables.index"),
    (pathlib.Path.unlink, "variables/variables.index"),
    (lambda path: shutil.rmtree(path.parent), "variables/variables.index"),
  ],
)
def test_corrupt_saved_models_are_named(change, file, tmp_path):
  module = tf.Module()
  module.weight = tf.Variable(tf.ones([99]))
  tf.saved_model.save(module, str(tmp_path))
  change(tmp_path / file)
  message = rf"--saved_model={tmp_path} is incomplete, corrupt .* export the model again"
  with pytest.raises(UserError, match=message) as caught:
    EncodedImageModel.from_saved_model(str(tmp_path))
  assert "\n" not in str(caught.value)


def test_saved_models_of_other_programs_are_named(tmp_path):
  module = tf.Module()
  tf.saved_model.save(module, str(tmp_path / "a"))

  @tf.function(input_signature=[tf.TensorSpec([], tf.string)] * 2)
  def join(x, y):
    return {"probs": tf.strings.join([x, y])}

  tf.saved_model.save(module, str(tmp_path / "b"), signatures=join)
  for name in ("a", "b"):
    with pytest.raises(UserError, match="has no signature that takes encoded images"):
      EncodedImageModel.from_saved_model(str(tmp_path / name))


def test_saved_models_with_pipes_are_not_read(tmp_path):
  (tmp_path / "saved_model.pb").write_bytes(b"x")
  (tmp_path / "variables").mkdir()
  os.mkfifo(tmp_path / "variables/variables.index")
  with pytest.raises(
    UserError, match=r"variables/variables\.index is a pipe or a device; expected"
  ):
    EncodedImageModel.from_saved_model(str(tmp_path))
