"""Random changes of valid files end in the errors of the data conversion, or in valid entries."""

import json
import math
import random

from sasa_tf.data.detection.coco_files import join_annotations, read_coco
from sasa_tf.data.detection.voc_files import read_annotation
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.json_files import read_json
from sasa_tf.data.inputs.text_files import TextError
from sasa_tf.data.labels import read_labels
from tests.broken_files import changed_bytes, changed_values

from . import box_data
from .hostile_values import HOSTILE_VALUES

ROUNDS = 300
XML = box_data.voc_xml(box_data.voc_object("猫"), box_data.voc_object("cat", (1, 2, 3.5, 4)))
CONTENT = box_data.coco_content(boxes=[(7, 1, [1, 2, 3, 4.5]), (9, 3, [0, 0, 9, 9])])
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "gbk", "big5hkscs")


def _texts(tmp_path, text):
  """Yields a file with random content that is derived from a text."""
  generator = random.Random(text)
  path = tmp_path / "file"
  for number in range(ROUNDS):
    content = text.encode(ENCODINGS[number % len(ENCODINGS)])
    path.write_bytes(changed_bytes(content, generator))
    yield path


def test_labels(tmp_path):
  num_valid = 0
  for path in _texts(tmp_path, "background\n猫\r\ncat \n\n"):
    try:
      names = read_labels(path)
    except DatasetError:
      continue
    num_valid += 1
    assert all(name == name.strip() and name for name in names)
  assert 0 < num_valid < ROUNDS


def test_annotations_of_voc(tmp_path):
  num_valid = 0
  for path in _texts(tmp_path, f'<?xml version="1.0"?>{XML}'):
    try:
      annotation = read_annotation(path)
    except ValueError:
      continue
    num_valid += 1
    assert annotation.size is None or all(type(side) is int for side in annotation.size)
    for voc_object in annotation.objects:
      assert voc_object.class_name is None or voc_object.class_name.isprintable()
  assert 0 < num_valid < ROUNDS


def test_json(tmp_path):
  num_valid = 0
  for path in _texts(tmp_path, json.dumps(CONTENT)):
    try:
      read_json(path)
    except TextError:
      continue
    num_valid += 1
  assert 0 < num_valid < ROUNDS


def test_instances(tmp_path):
  generator, path, num_boxes = random.Random(0), tmp_path / "a.json", 0
  for _ in range(ROUNDS):
    path.write_text(json.dumps(changed_values(CONTENT, HOSTILE_VALUES, generator)))
    try:
      file = read_coco(path)
    except DatasetError:
      continue
    labels = {category["id"]: category["id"] for category in file.categories}
    images, _ = join_annotations(file, tmp_path, labels)
    assert len(images) == len(file.images)
    for image in images:
      assert image.error or 0 <= image.source_id < 2**63
      assert image.size is None or all(type(side) is int for side in image.size)
      for box in image.boxes:
        num_boxes += 1
        assert box.label in labels and type(box.is_crowd) is bool
        assert box.area is None or 0 < box.area < math.inf
  assert num_boxes > ROUNDS // 2
