"""The images that an export uses."""

import os

import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving.example_images import noise_images, read_images
from tests.data import image_bombs


def test_noise_images_are_equal_in_each_export():
  first, second = noise_images([4, 6], 2), noise_images([4, 6], 2)
  assert first == second and first[0] != first[1]
  assert tf.io.decode_image(first[0]).shape == (4, 6, 3)


def test_image_files_are_read(tmp_path):
  content = noise_images([4, 6], 1)
  (tmp_path / "a.png").write_bytes(content[0])
  assert read_images([tmp_path / "a.png"]) == content


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("text.png", "cannot be decoded: expected a JPEG"),
    ("missing.png", "cannot be read: No such"),
    ("pipe.png", "cannot be read: not a regular file"),
    ("bomb.jpeg", "is a decompression bomb"),
  ],
)
def test_file_that_is_no_image_is_named(name, message, tmp_path):
  (tmp_path / "text.png").write_text("x")
  os.mkfifo(tmp_path / "pipe.png")
  (tmp_path / "bomb.jpeg").write_bytes(image_bombs.jpeg(23_000, 23_000))
  with pytest.raises(UserError, match=rf"{name} {message}"):
    read_images([str(tmp_path / name)])
