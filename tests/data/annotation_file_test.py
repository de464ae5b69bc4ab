import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from sasa_tf.data.detection.annotated_images import write_annotation_file
from sasa_tf.data.detection.boxes import Box, CheckedImage

from .coco_evaluation import evaluated, perfect_detections

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
IMAGES = [
  CheckedImage(139, "b.jpg", 480, 640, (Box(10.0, 20.0, 50.5, 60.0, 3, 900.0),)),
  CheckedImage(7, "\udcff.jpg", 24, 40, ()),
  CheckedImage(
    9,
    "a.jpg",
    480,
    640,
    (Box(0.0, 0.0, 640.0, 480.0, 1, 307200.0, True), Box(1.0, 2.0, 1 / 3 + 2, 5.0, 1, 4.0)),
  ),
]


@pytest.fixture
def path(tmp_path):
  write_annotation_file(tmp_path / "train.json", IMAGES, CATEGORIES)
  return tmp_path / "train.json"


def test_images_are_sorted_by_id(path):
  content = json.loads(path.read_text())
  assert content["categories"] == CATEGORIES
  assert [image["id"] for image in content["images"]] == [7, 9, 139]
  assert content["images"][2] == {"id": 139, "file_name": "b.jpg", "height": 480, "width": 640}


def test_annotation_ids_start_at_one(path):
  annotations = json.loads(path.read_text())["annotations"]
  assert [annotation["id"] for annotation in annotations] == [1, 2, 3]
  assert [annotation["iscrowd"] for annotation in annotations] == [1, 0, 0]
  assert annotations[1]["bbox"] == [1, 2, 1.333, 3]
  assert annotations[2] == {
    "id": 3,
    "image_id": 139,
    "category_id": 3,
    "bbox": [10, 20, 40.5, 40],
    "area": 900,
    "iscrowd": 0,
  }


def test_average_precision_of_perfect_and_shifted_detections(path):
  detections = perfect_detections(path)
  assert evaluated(path, detections)[0] == pytest.approx(1.0)
  for detection in detections:
    detection["bbox"] = np.add(detection["bbox"], [300, 200, 0, 0]).tolist()
  assert evaluated(path, detections)[0] == 0


def test_file_without_annotations_is_valid(tmp_path):
  write_annotation_file(tmp_path / "train.json", [IMAGES[1]], CATEGORIES)
  truth = COCO(tmp_path / "train.json")
  assert truth.getImgIds() == [7] and truth.getAnnIds() == []
