"""Records without a usable image or label are skipped, up to a limit."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sasa_tf.data.integrity import corrupt_records, record_validation, tfrecord_repair
from sasa_tf.data.integrity.record_validation import DETECTION_SCHEMA, RecordSchema
from sasa_tf.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, [12, 16, 3], np.uint8)
JPEG = tf.io.encode_jpeg(PIXELS).numpy()
PNG = tf.io.encode_png(PIXELS).numpy()
# Has a valid header, but a baseline scan in place of a progressive one.
UNDECODABLE = JPEG.replace(b"\xff\xc0", b"\xff\xc2")


def example(encoded=JPEG, labels=(3,), boxes=None, source_id=None, bottoms=None):
  features = {}
  if encoded is not None:
    features["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
  key = "image/class/label" if boxes is None else "image/object/class/label"
  if labels is not None:
    features[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=labels))
  if boxes is not None:
    for corner in ("xmin", "ymin", "xmax", "ymax"):
      count = boxes if corner != "ymax" or bottoms is None else bottoms
      features[f"image/object/bbox/{corner}"] = tf.train.Feature(
        float_list=tf.train.FloatList(value=[0.5] * count)
      )
  if source_id is not None:
    features["image/source_id"] = tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[source_id.encode("utf-8", "surrogateescape")])
    )
  return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def image_of(image_format):
  content = io.BytesIO()
  Image.fromarray(PIXELS).save(content, image_format)
  return content.getvalue()


INVALID = {
  "text": (example(b"<html>not found</html>", source_id="17"), "image '17': .*start with b'<html"),
  "id that is no text": (example(b"", source_id="caf\udce9"), r"image 'caf\\xe9': .* empty"),
  "zero bytes": (example(b""), "image/encoded is missing or empty"),
  "no image": (example(None), "image/encoded is missing or empty"),
  "truncated JPEG": (example(JPEG[: len(JPEG) // 2]), "is not an image"),
  "truncated PNG": (example(PNG[: len(PNG) // 2]), "is not an image"),
  "one byte": (example(b"\xff"), "is not an image"),
  "one row": (
    example(tf.io.encode_png(PIXELS[:1]).numpy()),
    "16 x 1 pixels, is not an image that can be cropped",
  ),
  "GIF": (example(image_of("GIF")), "is a GIF or WebP image.*expected JPEG, PNG or BMP"),
  "WebP": (example(image_of("WEBP")), "is a GIF or WebP image.*expected JPEG, PNG or BMP"),
  "no label": (example(labels=None), "expected one image/class/label; received 0"),
  "bytes": (b"\xff\xfe" * 9, r"not an example with the expected features: .*\\xff\\xfe"),
  "not an example": (b"something else", "not an example with the expected features"),
}


@pytest.mark.parametrize(("record", "problem"), INVALID.values(), ids=INVALID)
def test_invalid_records_are_found(record, problem):
  records = [example()] * 70 + [example(PNG)] + [record] + [example()] * 10
  dataset = tf.data.Dataset.from_tensor_slices(records)
  found = list(record_validation.invalid_records(dataset, RecordSchema()))
  assert [number for number, _ in found] == [71]
  with pytest.raises(AssertionError, match=problem):
    raise AssertionError(found[0][1])


def test_decode_all_finds_errors_within_a_jpeg():
  dataset = tf.data.Dataset.from_tensors(example(UNDECODABLE))
  assert not list(record_validation.invalid_records(dataset, RecordSchema()))
  assert list(record_validation.invalid_records(dataset, RecordSchema(), decode_all=True))


def test_header_of_a_jpeg_is_checked():
  broken = bytearray(JPEG)
  start = broken.index(b"\xff\xc0")  # The frame header, with the size.
  broken[start + 5 : start + 9] = b"\0\0\0\0"
  dataset = tf.data.Dataset.from_tensor_slices([example(), example(bytes(broken))])
  ((index, problem),) = record_validation.invalid_records(dataset, RecordSchema())
  assert index == 1 and "is not an image: jpeg::Uncompress failed" in problem


def test_detectors_take_images_of_one_row():
  record = example(tf.io.encode_png(PIXELS[:1]).numpy(), labels=[1], boxes=1)
  dataset = tf.data.Dataset.from_tensors(record)
  assert not list(record_validation.invalid_records(dataset, DETECTION_SCHEMA))


def test_number_of_boxes_and_labels_must_match():
  records = [
    example(labels=[1, 2], boxes=2),
    example(labels=[], boxes=0),
    example(labels=[1], boxes=2),
    example(labels=[1, 2], boxes=2, bottoms=1),
  ]
  dataset = tf.data.Dataset.from_tensor_slices(records)
  assert list(record_validation.invalid_records(dataset, DETECTION_SCHEMA)) == [
    (2, "2 image/object/bbox/xmin, but 1 image/object/class/label"),
    (3, "1 image/object/bbox/ymax, but 2 image/object/class/label"),
  ]


@pytest.fixture(params=["", "GZIP"], ids=["plain", "compressed"])
def files(tmp_path, request):
  """Three files; the second has two invalid records."""
  paths = []
  for index in range(3):
    paths.append(str(tmp_path / f"train-{index}"))
    with tf.io.TFRecordWriter(paths[-1], request.param) as writer:
      for number in range(5):
        bad = index == 1 and number in (1, 4)
        writer.write(example(b"text" if bad else JPEG, labels=[index * 10 + number]))
  return paths, request.param


def labels(files, compression):
  records = [record for file in files for record in tfrecord_repair.read(file, compression)]
  parsed = [tf.train.Example.FromString(record.numpy()) for record in records]
  return [each.features.feature["image/class/label"].int64_list.value[0] for each in parsed]


def test_records_are_skipped_up_to_the_limit(files, tmp_path, capsys):
  paths, compression = files
  usable = corrupt_records.skip_corrupt_records(
    paths, compression, RecordSchema(), limit=2, scratch=str(tmp_path / "scratch")
  )
  assert (usable[0], usable[2]) == (paths[0], paths[2])  # Valid files are not copied.
  assert labels(usable, compression) == [0, 1, 2, 3, 4, 10, 12, 13, 20, 21, 22, 23, 24]
  stderr = capsys.readouterr().err
  assert f"skipped {paths[1]}, record 1 (from 0)" in stderr and "record 4" in stderr
  with pytest.raises(UserError, match=r"more than --max_corrupt_records=1 .*train-1, record 4"):
    corrupt_records.skip_corrupt_records(
      paths, compression, RecordSchema(), limit=1, scratch=str(tmp_path / "b")
    )
  first, can_be_skipped = corrupt_records.find_corruption(paths, compression, RecordSchema())
  assert (first.file, first.record, can_be_skipped) == (paths[1], 1, True)
  assert corrupt_records.find_corruption(paths[:1], compression, RecordSchema()) is None


def test_jpeg_images_of_one_pixel_are_skipped(tmp_path):
  """And what only decoding finds is not reported as such."""
  path = str(tmp_path / "train-0")
  narrow = tf.io.encode_jpeg(np.zeros([1, 9, 3], np.uint8)).numpy()
  with tf.io.TFRecordWriter(path) as writer:
    for number, image in enumerate((JPEG, narrow, JPEG)):
      writer.write(example(image, labels=[number]))
  usable = corrupt_records.skip_corrupt_records(
    [path], "", RecordSchema(), limit=1, scratch=str(tmp_path / "scratch")
  )
  assert labels(usable, "") == [0, 2]
  assert corrupt_records.find_corruption([path], "", RecordSchema())[1]
  with tf.io.TFRecordWriter(path) as writer:
    writer.write(example(UNDECODABLE, labels=[0]))
  corruption, can_be_skipped = corrupt_records.find_corruption([path], "", RecordSchema())
  assert "is not an image" in corruption.problem and not can_be_skipped


def test_corrupt_bytes_and_invalid_image_in_one_file(files, tmp_path):
  paths, compression = files
  if compression:
    pytest.skip("nothing after a corruption of a compressed file can be read")
  with open(paths[1], "r+b") as opened:  # The header of the second record.
    opened.seek(len(example(labels=[10])) + 16)
    opened.write(b"\xaa" * 4)
  usable = corrupt_records.skip_corrupt_records(
    paths, compression, RecordSchema(), limit=2, scratch=str(tmp_path / "scratch")
  )
  assert labels(usable, "")[5:8] == [10, 12, 13]


def test_data_set_of_corrupt_records_alone_is_rejected(tmp_path):
  path = tmp_path / "train-0"
  with tf.io.TFRecordWriter(str(path)) as writer:
    for _ in range(3):
      writer.write(b"no example")
  (tmp_path / "train-1").write_bytes(b"")
  with pytest.raises(UserError, match=r"no valid record is left in 2 files .*train-0\): 3 are"):
    corrupt_records.skip_corrupt_records(
      [str(path), str(tmp_path / "train-1")], "", RecordSchema(), limit=9, scratch=str(tmp_path)
    )
