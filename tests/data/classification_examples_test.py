import pytest
import tensorflow as tf

from sasa_tf.data.classification.examples import classification_example
from sasa_tf.data.errors import BrokenImageError

from . import image_files


def test_example_has_model_gardens_classification_keys():
  encoded = image_files.jpeg(12, 10)
  example = classification_example(encoded, 3, "Käfer", "Käfer/1.jpg")
  assert example.image_format == "jpeg"
  parsed = tf.io.parse_single_example(
    example.serialized,
    {
      **{
        f"image/{key}": tf.io.FixedLenFeature((), tf.string)
        for key in ("encoded", "format", "filename", "class/text")
      },
      **{
        f"image/{key}": tf.io.FixedLenFeature((), tf.int64)
        for key in ("height", "width", "class/label")
      },
    },
  )
  assert {key: value.numpy() for key, value in parsed.items()} == {
    "image/encoded": encoded,
    "image/format": b"jpeg",
    "image/filename": "Käfer/1.jpg".encode(),
    "image/class/text": "Käfer".encode(),
    "image/height": 12,
    "image/width": 10,
    "image/class/label": 3,
  }


def test_format_is_that_of_the_content():
  assert classification_example(image_files.png(), 0, "a", "a/1.jpg").image_format == "png"


def test_file_name_that_is_not_unicode():
  example = classification_example(image_files.png(), 0, "a", "a/\udcff.png")
  assert b"a/\xff.png" in example.serialized


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1)])
def test_image_without_a_center_crop_raises(height, width):
  encoded = image_files.png(height, width)
  with pytest.raises(BrokenImageError, match=f"^{width} x {height} pixels: the center crop"):
    classification_example(encoded, 0, "a", "a/1.png")
  classification_example(image_files.png(2, 2), 0, "a", "a/1.png")


def test_broken_image_raises():
  with pytest.raises(BrokenImageError):
    classification_example(b"", 0, "a", "a/1.jpg")
