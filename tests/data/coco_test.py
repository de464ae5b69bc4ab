import json
import math

import pytest

from sasa_tf.data.detection import coco
from sasa_tf.data.errors import DatasetError

from . import box_data
from .coco_evaluation import evaluated, perfect_detections

BOXES = (
  (7, 3, [2.5, 4, 18, 11], {"area": 77.5, "iscrowd": 0}),
  (7, 1, [0, 0, 40, 24], {"iscrowd": 1}),
  (139, 1, [5, 6, 7, 8]),
)


def _write(tmp_path, **options):
  return box_data.write_coco(
    tmp_path / "coco", box_data.coco_content(**{"boxes": BOXES, **options})
  )


def _convert(root, output, **options):
  return coco.convert(
    root / "images", root / "instances.json", output, **{"num_processes": 1, **options}
  )


def _boxes(output, split="train"):
  return [
    (a["image_id"], a["category_id"], a["bbox"])
    for a in box_data.annotations(output, split)["annotations"]
  ]


def test_ids_and_boxes_are_unchanged(tmp_path):
  root = _write(tmp_path)
  _convert(root, tmp_path / "out")
  example = box_data.examples(tmp_path / "out")["7.jpg"]
  assert example["encoded"] == [(root / "images/7.jpg").read_bytes()]
  assert example["source_id"] == [b"7"]
  assert example["object/class/label"] == [3, 1]
  assert example["object/class/text"] == [b"dog", b"cat"]
  assert example["object/area"] == [77.5, 40 * 24]
  assert example["object/is_crowd"] == [0, 1]
  assert example["object/bbox/xmin"] == pytest.approx([2.5 / 40, 0])
  assert example["object/bbox/ymax"] == pytest.approx([15 / 24, 1])
  assert _boxes(tmp_path / "out") == [(image, category, box) for image, category, box, *_ in BOXES]
  assert (tmp_path / "out/labels.txt").read_text() == "background\ncat\nunused 2\ndog\n"
  assert box_data.annotations(tmp_path / "out")["categories"] == [
    {"id": 1, "name": "cat", "supercategory": "animal"},
    {"id": 3, "name": "dog", "supercategory": "animal"},
  ]


def test_images_without_annotations_are_converted(tmp_path):
  summary = _convert(_write(tmp_path), tmp_path / "out")
  assert box_data.examples(tmp_path / "out").keys() == {"7.jpg", "9.jpg", "139.jpg"}
  assert summary.splits["train"].annotation_stats.images_without == 1


def test_contiguous_category_ids(tmp_path):
  _convert(_write(tmp_path), tmp_path / "out", category_ids="contiguous")
  assert (tmp_path / "out/labels.txt").read_text() == "background\ncat\ndog\n"
  assert [box[1] for box in _boxes(tmp_path / "out")] == [2, 1, 1]
  assert box_data.examples(tmp_path / "out")["7.jpg"]["object/class/label"] == [2, 1]
  categories = box_data.annotations(tmp_path / "out")["categories"]
  assert [(c["id"], c["original_id"], c["name"]) for c in categories] == [
    (1, 1, "cat"),
    (2, 3, "dog"),
  ]


@pytest.mark.parametrize(
  ("category_ids", "label", "lines"), [("original", 3, 4), ("contiguous", 1, 2)]
)
def test_classes_can_be_selected(tmp_path, category_ids, label, lines):
  _convert(_write(tmp_path), tmp_path / "out", classes="dog", category_ids=category_ids)
  assert [box[:2] for box in _boxes(tmp_path / "out")] == [(7, label)]
  assert len(box_data.annotations(tmp_path / "out")["images"]) == 3
  assert (tmp_path / "out/labels.txt").read_text().count("\n") == lines


def test_contiguous_ids_follow_the_order_of_selected_classes(tmp_path):
  _convert(_write(tmp_path), tmp_path / "out", classes="dog,cat", category_ids="contiguous")
  assert (tmp_path / "out/labels.txt").read_text() == "background\ndog\ncat\n"
  assert [box[1] for box in _boxes(tmp_path / "out")] == [1, 2, 2]


def test_category_id_zero_requires_contiguous_ids(tmp_path):
  root = _write(tmp_path, boxes=[(7, 0, [1, 1, 5, 5])], categories=[(0, "cat"), (1, "dog")])
  with pytest.raises(DatasetError, match=r"id 0 is not a valid label.*--category_ids=contiguous"):
    _convert(root, tmp_path / "out")
  _convert(root, tmp_path / "out", category_ids="contiguous")
  assert [box[1] for box in _boxes(tmp_path / "out")] == [1]


def test_perfect_detections_have_average_precision_one(tmp_path):
  _convert(_write(tmp_path), tmp_path / "out")
  path = tmp_path / "out/train.json"
  assert evaluated(path, perfect_detections(path))[0] == pytest.approx(1.0)


def test_validation_split_is_converted_or_held_out(tmp_path):
  root = _write(
    tmp_path, image_ids=range(1, 11), boxes=[(i, 1, [1, 1, 9, 9]) for i in range(1, 11)]
  )
  _convert(root, tmp_path / "out")
  _convert(root, tmp_path / "out", split="validation", num_shards=2)
  assert (tmp_path / "out/validation.json").exists()
  summary = _convert(root, tmp_path / "parts", validation_fraction=0.3)
  assert [split.examples for split in summary.splits.values()] == [7, 3]
  ids = [set(map(str, box_data.examples(tmp_path / "parts", s))) for s in ("train", "validation")]
  assert not ids[0] & ids[1]


def test_equal_seeds_give_equal_files(tmp_path):
  root = _write(tmp_path)
  for name in ("a", "b"):
    _convert(root, tmp_path / name)
  a, b = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("a", "b"))
  assert a == b


INVALID_ANNOTATIONS = {
  "of an image that is not listed": (8, 1, [1, 1, 5, 5]),
  "with an invalid image_id": (2**63, 1, [1, 1, 5, 5]),
  "of a category that is not listed": (7, 2, [1, 1, 5, 5]),
  "without a readable bbox": (7, 1, [1, 1, 5]),
  "swapped corners": (7, 1, [9, 1, -5, 5]),
  "empty": (7, 1, [9, 1, 0, 5]),
  "outside the image": (7, 1, [41, 1, 5, 5]),
  "partly outside the image": (7, 1, [30, 1, 15, 5]),
  "not a finite number": (7, 1, [math.nan, 1, 15, 5]),
}


def test_invalid_annotations_are_listed_and_dropped_or_clipped(tmp_path):
  root = _write(tmp_path, boxes=[*INVALID_ANNOTATIONS.values(), *BOXES])
  summary = _convert(root, tmp_path / "out")
  assert summary.splits["train"].annotation_stats.problems == dict.fromkeys(INVALID_ANNOTATIONS, 1)
  assert _boxes(tmp_path / "out")[0] == (7, 1, [30, 1, 10, 5])
  assert len(_boxes(tmp_path / "out")) == 1 + len(BOXES)
  lines = box_data.problems(tmp_path / "out")
  for number, kind in enumerate(INVALID_ANNOTATIONS, start=100):
    (line,) = (line for line in lines if f"annotation {number} (" in line)
    assert f": {kind}, " in line


def test_data_without_a_valid_box_is_rejected(tmp_path):
  root = _write(tmp_path, boxes=[(7, 3, [5, 5, 0, 4], {}), (139, 1, [900, 900, 5, 5], {})])
  with pytest.raises(DatasetError, match=r"none of the 2 annotations is a valid box\. The first: "):
    _convert(root, tmp_path / "out")
  assert not (tmp_path / "out").exists()
  # One is enough, also in another split.
  root = _write(tmp_path / "b", boxes=[(7, 3, [5, 5, 0, 4], {}), (139, 1, [5, 5, 5, 5], {})])
  _convert(root, tmp_path / "out")


@pytest.mark.parametrize("kind", INVALID_ANNOTATIONS)
def test_strict_raises_for_every_kind_of_invalid_annotation(tmp_path, kind):
  root = _write(tmp_path, boxes=[INVALID_ANNOTATIONS[kind]])
  with pytest.raises(
    DatasetError, match=f"annotation 100.*: {kind}\\.\n.*omit --strict.*(dropped|clipped)"
  ):
    _convert(root, tmp_path / "out", strict=True)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keys", [{"bbox": "no"}, {"category_id": [1]}, {"image_id": {}}, {}])
def test_annotations_of_wrong_types_are_invalid(tmp_path, keys):
  content = box_data.coco_content(boxes=BOXES)
  content["annotations"].append(keys)
  summary = _convert(box_data.write_coco(tmp_path / "coco", content), tmp_path / "out")
  assert sum(summary.splits["train"].annotation_stats.problems.values()) == 1


def test_missing_images_and_images_of_other_sizes_are_skipped(tmp_path):
  content = box_data.coco_content(boxes=BOXES)
  content["images"][0]["width"] = 41
  root = box_data.write_coco(tmp_path / "coco", content)
  (root / "images/9.jpg").unlink()
  content["images"].append({"id": 10})
  (root / "instances.json").write_text(json.dumps(content))
  summary = _convert(root, tmp_path / "out")
  assert summary.splits["train"].skipped == 3
  reasons = sorted((tmp_path / "out/skipped-train.txt").read_text().splitlines())
  assert reasons[0].startswith(f"{root}/images/7.jpg: the annotation is for 41x24 pixels")
  assert reasons[1].endswith("image 10: has no file_name")
  assert reasons[2].endswith(
    "image 9 (9.jpg): " + f"{root}/images/9.jpg: No such file or directory"
  )
  assert [image["id"] for image in box_data.annotations(tmp_path / "out")["images"]] == [139]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"annotations": None}, "no list of objects 'annotations'"),
    ({"categories": []}, "'categories' is empty"),
    (
      {"categories": [{"id": 1}]},
      r"no valid category: .*: categories\[0\] .*: category without a valid name",
    ),
    ({"images": [{"id": "0007"}]}, "must be integers from 0 to .*, received '0007'"),
    ({"images": [{"id": 7}, {"id": 7}]}, "two images have the id 7"),
    ({"categories": [{"id": i, "name": "cat"} for i in (1, 2)]}, "the same name"),
    ({"categories": [{"id": 10**9, "name": "cat"}]}, "id 1000000000 is not a valid label"),
  ],
)
def test_invalid_instances_files_raise(tmp_path, change, message):
  (tmp_path / "instances.json").write_text(json.dumps({**box_data.coco_content(), **change}))
  with pytest.raises(DatasetError, match=message):
    _convert(tmp_path, tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("text", "message"), [("{", ": not valid JSON"), ("[]", "no list of objects")]
)
def test_files_of_other_formats_raise(tmp_path, text, message):
  (tmp_path / "instances.json").write_text(text)
  with pytest.raises(DatasetError, match=f"{message}.*Expected COCO's instances format"):
    _convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"category_ids": "mine"}, "original or contiguous, received 'mine'"),
    (
      {"classes": "cow"},
      r"contains 'cow', which .*instances.json does not have. Its categories: cat, dog\.",
    ),
    ({"split": "validation", "validation_fraction": 0.2}, "--split other than validation"),
  ],
)
def test_invalid_settings_raise(tmp_path, options, message):
  with pytest.raises(DatasetError, match=message):
    _convert(_write(tmp_path), tmp_path / "out", **options)


def test_folder_without_the_images_is_named(tmp_path):
  root = _write(tmp_path)
  with pytest.raises(DatasetError, match=r"--input .* has none of the .* images .*--input="):
    coco.convert(root, root / "instances.json", tmp_path / "a")
  (root / "empty").mkdir()
  with pytest.raises(DatasetError, match=r"Pass the folder that the names in the file are"):
    coco.convert(root / "empty", root / "instances.json", tmp_path / "a")
  with pytest.raises(DatasetError, match="nowhere is not a folder"):
    coco.convert(tmp_path / "nowhere", root / "instances.json", tmp_path / "a")


def test_instances_file_is_not_overwritten(tmp_path):
  root = _write(tmp_path)
  (root / "instances.json").rename(root / "train.json")
  content = (root / "train.json").read_bytes()
  with pytest.raises(DatasetError, match=r"train\.json was not written by this program"):
    coco.convert(root / "images", root / "train.json", root, num_processes=1, overwrite=True)
  assert (root / "train.json").read_bytes() == content
