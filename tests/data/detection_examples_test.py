import pytest
import tensorflow as tf

from sasa_tf.data.detection.annotated_images import detection_example
from sasa_tf.data.detection.boxes import AnnotatedImage, Box
from sasa_tf.data.errors import BrokenImageError

from . import image_files

NAMES = ("background", "cat", "dog")
ENCODED = image_files.jpeg(24, 40)
BOXES = (
  Box(4.0, 6.0, 20.0, 12.0, 2, name="object 1"),
  Box(9.0, 6.0, 5.0, 12.0, 1, name="object 2"),
  Box(10.0, 0.0, 50.0, 24.0, 1, 99.5, True, name="object 3"),
)


def _image(boxes=BOXES, size=(24, 40)):
  return AnnotatedImage("in/a.jpg", "a.jpg", 139, "a.xml", size, boxes)


def _features(example):
  return tf.train.Example.FromString(example.serialized).features.feature


def test_image_is_unchanged_and_source_id_is_text():
  feature = _features(detection_example(ENCODED, _image(), NAMES))
  assert feature["image/encoded"].bytes_list.value == [ENCODED]
  assert feature["image/source_id"].bytes_list.value == [b"139"]
  assert feature["image/filename"].bytes_list.value == [b"a.jpg"]
  assert feature["image/height"].int64_list.value == [24]
  assert feature["image/width"].int64_list.value == [40]


def test_valid_boxes_are_normalized():
  feature = _features(detection_example(ENCODED, _image(), NAMES))
  floats = {
    key: list(feature[f"image/object/{key}"].float_list.value)
    for key in ("bbox/xmin", "bbox/xmax", "bbox/ymin", "bbox/ymax", "area")
  }
  assert floats == {
    "bbox/xmin": pytest.approx([0.1, 0.25]),
    "bbox/xmax": pytest.approx([0.5, 1]),
    "bbox/ymin": pytest.approx([0.25, 0]),
    "bbox/ymax": pytest.approx([0.5, 1]),
    "area": [96, 99.5],
  }
  assert feature["image/object/class/label"].int64_list.value == [2, 1]
  assert feature["image/object/class/text"].bytes_list.value == [b"dog", b"cat"]
  assert feature["image/object/is_crowd"].int64_list.value == [0, 1]


def test_example_has_annotations_and_problems():
  example = detection_example(ENCODED, _image(), NAMES)
  assert [problem.kind for problem in example.problems] == [
    "swapped corners",
    "partly outside the image",
  ]
  assert example.annotations[:4] == (139, "a.jpg", 24, 40)
  assert [box[:5] for box in example.annotations.boxes] == [(4, 6, 20, 12, 2), (10, 0, 40, 24, 1)]


def test_image_without_boxes():
  example = detection_example(ENCODED, _image(boxes=()), NAMES)
  assert not any(key.startswith("image/object") for key in _features(example))
  assert example.annotations.boxes == ()


def test_annotation_of_another_size_raises():
  with pytest.raises(BrokenImageError, match="is for 24x40 pixels, but the image has 40x24"):
    detection_example(ENCODED, _image(size=(40, 24)), NAMES)
  assert detection_example(ENCODED, _image(size=None), NAMES).image_format == "jpeg"
