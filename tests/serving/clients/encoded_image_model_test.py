"""Errors of the client that runs SavedModels on image files."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.clients.unreadable_images import UnreadableImageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Returns a SavedModel that crops 7/8 of the shorter side, which is nothing of one pixel."""

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
  def serve(image_bytes):
    image = tf.io.decode_image(image_bytes[0], channels=3, expand_animations=False)
    side = tf.cast(0.875 * tf.cast(tf.reduce_min(tf.shape(image)[:2]), tf.float32), tf.int32)
    image = tf.image.resize(tf.ensure_shape(image, [None, None, 3])[:side, :side], [2, 2])
    return {"probs": tf.reshape(image, [1, -1])}

  path = str(tmp_path_factory.mktemp("model"))
  tf.saved_model.save(tf.Module(), path, signatures={"image_bytes": serve})
  return EncodedImageModel.from_saved_model(path)


def write_png(path, height, width):
  path.write_bytes(tf.io.encode_png(np.zeros([height, width, 3], np.uint8)).numpy())
  return str(path)


def test_outputs_of_an_image(model, tmp_path):
  assert model.run(write_png(tmp_path / "image.png", 4, 4))["probs"].shape == (12,)


def test_image_that_is_too_narrow_to_crop_is_named_with_its_size(model, tmp_path):
  with pytest.raises(UnreadableImageError, match=r"9 x 1 pixels.*at least 2 pixels per side\.$"):
    model.run(write_png(tmp_path / "narrow.png", 1, 9))


def test_file_that_is_no_image_is_named(model, tmp_path):
  (tmp_path / "text.png").write_text("not an image")
  with pytest.raises(UnreadableImageError, match=r"text\.png cannot be decoded: expected a JPEG"):
    model.run(str(tmp_path / "text.png"))
