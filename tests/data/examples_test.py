import pytest
import tensorflow as tf

from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.examples import classification_example, serialize

from . import image_files


def test_holds_model_gardens_classification_keys():
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


def test_the_format_is_the_contents_not_the_names():
  assert classification_example(image_files.png(), 0, "a", "a/1.jpg").image_format == "png"


def test_a_file_name_may_be_no_unicode():
  example = classification_example(image_files.png(), 0, "a", "a/\udcff.png")
  assert b"a/\xff.png" in example.serialized


def test_broken_images_make_no_example():
  with pytest.raises(BrokenImageError):
    classification_example(b"", 0, "a", "a/1.jpg")


def test_equal_features_give_equal_bytes_in_any_order():
  features = {f"key{i}": [i] for i in range(50)}
  assert serialize(features) == serialize(dict(reversed(features.items())))


def test_lists_of_each_type_come_back():
  example = tf.train.Example.FromString(
    serialize({"i": [1, -2], "f": [0.5], "b": [b"x", b""], "none": []})
  )
  feature = example.features.feature
  assert list(feature["i"].int64_list.value) == [1, -2]
  assert list(feature["f"].float_list.value) == [0.5]
  assert list(feature["b"].bytes_list.value) == [b"x", b""]
  assert "none" in feature


@pytest.mark.parametrize("values", [["text"], [1, 2.0], [True]])
def test_refuses_values_of_other_or_mixed_types(values):
  with pytest.raises(TypeError, match="'key' must hold"):
    serialize({"key": values})
