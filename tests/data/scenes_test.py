import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.data.classification import digits
from sasa_tf.data.detection import scene_drawing, scenes
from sasa_tf.data.errors import DatasetError

from . import box_data
from .coco_evaluation import evaluated, perfect_detections

OPTIONS = {"train_images": 8, "validation_images": 6, "num_preview_images": 2, "num_processes": 1}


def _content(output):
  return {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file()}


@functools.cache
def _digits():
  return [
    (digit.label, np.frombuffer(digit.gray_levels, np.uint8).reshape(8, 8))
    for digit in digits.load_digits()
  ]


def _scene(seed, size=128):
  return scene_drawing.draw_scene(size, _digits(), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
  path = tmp_path_factory.mktemp("scenes") / "out"
  scenes.convert(path, **OPTIONS)
  return path


def test_writes_both_splits_with_labels_and_annotations(output):
  train, validation = (box_data.examples(output, split) for split in ("train", "validation"))
  assert (len(train), len(validation)) == (8, 6)
  assert (output / "labels.txt").read_text().split() == ["background", *"0123456789"]
  ids = [int(e["source_id"][0]) for e in [*train.values(), *validation.values()]]
  assert sorted(ids) == list(range(1, 15))
  categories = box_data.annotations(output, "validation")["categories"]
  assert [(c["id"], c["name"]) for c in categories] == [(i + 1, str(i)) for i in range(10)]
  for example in train.values():
    assert tf.io.decode_jpeg(example["encoded"][0]).shape == (128, 128, 3)
    assert 1 <= len(example["object/class/label"]) <= 6


def test_perfect_detections_have_average_precision_one(output):
  path = output / "validation.json"
  assert evaluated(path, perfect_detections(path))[0] == pytest.approx(1.0)


def test_scenes_depend_on_the_seed(output, tmp_path):
  for seed in (0, 1):
    scenes.convert(tmp_path / str(seed), **OPTIONS, seed=seed)
  assert _content(tmp_path / "0") == _content(output)
  assert not {*_content(tmp_path / "1").values()} & {
    value for name, value in _content(output).items() if name.suffix in (".jpg", ".tfrecord")
  }


def test_smaller_data_set_is_a_prefix_of_a_larger_one(output, tmp_path):
  scenes.convert(tmp_path, **{**OPTIONS, "train_images": 3})
  few, many = box_data.examples(tmp_path), box_data.examples(output)
  assert few == {name: example for name, example in many.items() if name in few}
  assert len(few) == 3


def test_preview_images_are_validation_scenes(output):
  names = sorted(path.name for path in (output / "preview_images").iterdir())
  assert names == ["validation-000000.jpg", "validation-000001.jpg", "with_boxes.png"]
  examples = box_data.examples(output, "validation")
  for name in names[:2]:
    assert (output / "preview_images" / name).read_bytes() == examples[name]["encoded"][0]
  with_boxes = tf.io.decode_png((output / "preview_images/with_boxes.png").read_bytes())
  assert with_boxes.shape == (128, 2 * 128, 3)


def test_png_of_another_size(tmp_path):
  scenes.convert(
    tmp_path, **{**OPTIONS, "size": 64, "image_format": "png", "num_preview_images": 0}
  )
  for name, example in box_data.examples(tmp_path).items():
    assert name.endswith(".png") and example["format"] == [b"png"]
    assert tf.io.decode_png(example["encoded"][0]).shape == (64, 64, 3)
  assert not (tmp_path / "preview_images").exists()


def test_splits_have_different_digits():
  train, validation = ({d.index for d in part} for part in digits.train_and_validation_digits(3))
  assert len(train) == 1437 and len(validation) == 360 and not train & validation
  for split, part in zip(
    ("train", "validation"), digits.train_and_validation_digits(3), strict=True
  ):
    assert [label for label, _ in scenes._digits(split, 3)] == [digit.label for digit in part]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": 16}, "between 32 and 2048 pixels, received 16"),
    ({"image_format": "gif"}, "jpeg or png, received 'gif'"),
    ({"num_preview_images": 7}, "between 0 and the 6 validation scenes, received 7"),
    ({"train_images": 0}, "must be 1 to 10,000,000, received 0 and 6"),
    ({"train_images": 10**12}, "must be 1 to 10,000,000, received 1000000000000 and 6"),
    ({"seed": -1}, "--seed must be 0 or more, received -1"),
  ],
)
def test_invalid_settings_raise(tmp_path, options, message):
  with pytest.raises(DatasetError, match=message):
    scenes.convert(tmp_path / "out", **{**OPTIONS, **options})
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [32, 128])
def test_boxes_are_inside_the_image_and_do_not_touch(size):
  for seed in range(20):
    boxes = np.array([box[:4] for box in _scene(seed, size).boxes])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= size).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
    for i, one in enumerate(boxes):
      for other in boxes[:i]:
        assert (one[:2] >= other[2:]).any() or (other[:2] >= one[2:]).any()


def test_boxes_are_tight():
  """Each edge of a box contains ink: pixels that differ from the color around the box."""
  for seed in range(10):
    scene = _scene(seed)
    image = scene.image.astype(float)
    for left, top, right, bottom, _ in scene.boxes:
      box = image[top:bottom, left:right]
      colors = [box[0], box[-1], box[:, 0], box[:, -1]]
      ground = np.median(box[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
      for edge in colors:
        assert np.abs(edge - ground).max() > 30


def test_scenes_differ_in_number_size_and_class():
  boxes = [_scene(seed).boxes for seed in range(40)]
  assert {len(scene) for scene in boxes} == {1, 2, 3, 4, 5, 6}
  heights = [bottom - top for scene in boxes for _, top, _, bottom, _ in scene]
  assert min(heights) < 20 and max(heights) > 45
  assert {box[4] for scene in boxes for box in scene} == set(range(10))


def test_boxes_are_drawn_around_the_digits():
  scene = _scene(0)
  outlined = scene_drawing.draw_boxes(scene)
  left, top, right, bottom, _ = scene.boxes[0]
  inside = np.s_[top:bottom, left:right]
  np.testing.assert_array_equal(outlined[inside], scene.image[inside])
  assert (outlined[top:bottom, right] == outlined[top, right]).all()
  assert (outlined != scene.image).any()


def test_annotations_match_the_records(output):
  names = {
    i["id"]: i["file_name"] for i in json.loads((output / "train.json").read_text())["images"]
  }
  examples = box_data.examples(output)
  count = dict.fromkeys(examples, 0)
  for annotation in box_data.annotations(output)["annotations"]:
    name = names[annotation["image_id"]]
    example, position = examples[name], count[name]
    count[name] += 1
    x, y, width, height = np.divide(annotation["bbox"], 128)
    box = [example[f"object/bbox/{e}"][position] for e in ("xmin", "ymin", "xmax", "ymax")]
    assert box == pytest.approx([x, y, x + width, y + height])
    assert example["object/class/label"][position] == annotation["category_id"]
  assert count == {name: len(e["object/class/label"]) for name, e in examples.items()}
