"""Random changes of TFRecords, label and annotation files: valid records survive, others do not."""

import json
import pathlib
import random

import tensorflow as tf

from sasa_tf.data.detection.coco_files import join_annotations, read_coco
from sasa_tf.data.detection.voc_files import read_annotation
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity import corrupt_records, tfrecord_repair
from sasa_tf.data.integrity.record_labels import check_labels
from sasa_tf.data.integrity.record_validation import RecordSchema, validate_record
from sasa_tf.data.labels import read_labels
from sasa_tf.errors import UserError
from tests.broken_files import BROKEN, changed_bytes, changed_values
from tests.data import box_data, image_files
from tests.data.hostile_values import HOSTILE_VALUES

NAMES = ("zero", "one", "猫")
_XML = box_data.voc_xml(box_data.voc_object("猫"), box_data.voc_object("cat", (1, 2, 3.5, 4)))
_COCO = box_data.coco_content(boxes=[(7, 1, [1, 2, 3, 4.5]), (9, 3, [0, 0, 9, 9])])
_SCHEMA = RecordSchema()


def _example(number, generator):
  """Returns a serialized example, of which the image or the message may be changed."""
  image = generator.choice((image_files.png, image_files.jpeg))(seed=number)
  if generator.random() < 0.1:
    image = changed_bytes(image, generator)
  label = number % len(NAMES)
  values = {
    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    "image/class/text": tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[NAMES[label].encode()])
    ),
  }
  example = tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()
  return changed_bytes(example, generator) if generator.random() < 0.1 else example


def _check_records(generator, directory):
  """Skips the corrupt records of a file, some bytes of which are changed."""
  path, compression = str(directory / "train-0"), generator.choice(("", "", "GZIP"))
  records = [_example(number, generator) for number in range(generator.randrange(1, 12))]
  with tf.io.TFRecordWriter(path, compression) as writer:
    for record in records:
      writer.write(record)
  written = pathlib.Path(path).read_bytes()
  content = changed_bytes(written, generator)
  pathlib.Path(path).write_bytes(content)
  valid = [record for record in records if validate_record(record, _SCHEMA) is None]
  try:
    usable = corrupt_records.skip_corrupt_records(
      [path], compression, _SCHEMA, limit=100, scratch=str(directory / "scratch")
    )
  except UserError as error:
    assert "no valid record is left" in str(error), str(error)[:300]
    if content == written:
      assert not valid, f"loses {len(valid)} valid records"
    return f"{len(records)} records, none valid"
  left = [record.numpy() for file in usable for record in tfrecord_repair.read(file, compression)]
  for record in left:
    # A JPEG image that is corrupt inside of its markers is found by training.
    problem = validate_record(record, _SCHEMA)
    assert problem is None or "is not an image" in problem, f"keeps a record: {problem}"
  if content == written:
    lost = [record for record in valid if record not in left]
    assert not lost, f"loses {len(lost)} valid records"
  return f"{len(records)} records, {len(left)} left"


def _check_labels(generator, directory):
  path, file = directory / "labels.txt", str(directory / "train-0")
  with tf.io.TFRecordWriter(file) as writer:
    for number in range(4):
      writer.write(_example(number, generator))
  path.write_bytes(changed_bytes("\n".join(NAMES).encode(), generator))
  try:
    check_labels(str(path), read_labels(path), [file])
  except DatasetError as error:
    assert str(path) in str(error), str(error)[:300]
  return "labels"


def _check_annotations(generator, directory):
  if generator.random() < 0.5:
    path = directory / "a.xml"
    path.write_bytes(changed_bytes(_XML.encode(), generator))
    try:
      read_annotation(path)
    except ValueError as error:  # names no file: the converter adds it
      assert "\n" not in str(error), str(error)[:300]
    return "XML"
  path = directory / "a.json"
  content = json.dumps(changed_values(_COCO, HOSTILE_VALUES, generator)).encode()
  if generator.random() < 0.3:
    content = changed_bytes(content, generator)
  path.write_bytes(generator.choice(list(BROKEN.values())) if generator.random() < 0.1 else content)
  try:
    file = read_coco(path)
  except DatasetError as error:
    assert str(path) in str(error), str(error)[:300]
    return "JSON, rejected"
  labels = {category["id"]: category["id"] for category in file.categories}
  images, _ = join_annotations(file, directory, labels)
  assert len(images) == len(file.images)
  return "JSON"


def check(seed, directory):
  """Raises an error unless broken files are reported; returns a description."""
  generator = random.Random(seed)
  kinds = (_check_records, _check_records, _check_labels, _check_annotations)
  return generator.choice(kinds)(generator, pathlib.Path(directory))
