import os

import pytest
import tensorflow as tf

from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.tfrecord.image_example import ImageInfo, inspect_image, serialize

from . import image_files


@pytest.mark.parametrize(
  ("encoded", "image_format"),
  [
    (image_files.jpeg(13, 7), "jpeg"),
    (image_files.jpeg(13, 7, progressive=True), "jpeg"),
    (image_files.jpeg(13, 7, channels=1), "jpeg"),
    (image_files.png(13, 7), "png"),
    (image_files.png(13, 7, channels=1), "png"),
    (image_files.png(13, 7, channels=4), "png"),
  ],
)
def test_returns_format_and_size(encoded, image_format):
  assert inspect_image(encoded) == ImageInfo(image_format, 13, 7)


@pytest.mark.parametrize("name", image_files.broken_files())
def test_broken_files_raise(name):
  encoded, message = image_files.broken_files()[name]
  with pytest.raises(BrokenImageError, match=message) as raised:
    inspect_image(encoded)
  assert "\n" not in str(raised.value)
  assert "{{" not in str(raised.value)


@pytest.mark.parametrize(
  "encoded", [image_files.png(), image_files.jpeg(), image_files.jpeg(progressive=True)]
)
def test_truncated_files_raise(encoded):
  # Without the last byte, half of JPEG's end marker, no pixel is missing.
  for length in range(len(encoded) - 1):
    with pytest.raises(BrokenImageError):
      inspect_image(encoded[:length])


def test_decoders_print_nothing_and_stderr_is_restored(capfd):
  with pytest.raises(BrokenImageError):
    inspect_image(image_files.jpeg()[:-40])
  assert capfd.readouterr().err == ""
  os.write(2, b"audible")
  assert capfd.readouterr().err == "audible"


def test_serialization_does_not_depend_on_the_order():
  features = {f"key{i}": [i] for i in range(50)}
  assert serialize(features) == serialize(dict(reversed(features.items())))


def test_serialized_lists_of_each_type():
  example = tf.train.Example.FromString(
    serialize({"i": [1, -2], "f": [0.5], "b": [b"x", b""], "none": []})
  )
  feature = example.features.feature
  assert list(feature["i"].int64_list.value) == [1, -2]
  assert list(feature["f"].float_list.value) == [0.5]
  assert list(feature["b"].bytes_list.value) == [b"x", b""]
  assert "none" in feature


@pytest.mark.parametrize("values", [["text"], [1, 2.0], [True]])
def test_values_of_other_or_mixed_types_raise(values):
  with pytest.raises(TypeError, match="'key' must hold"):
    serialize({"key": values})
