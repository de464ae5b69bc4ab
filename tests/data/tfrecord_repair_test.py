"""Truncated and corrupted TFRecord files."""

import itertools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.data.integrity import tfrecord_repair
from sasa_tf.data.integrity.tfrecord_repair import Segment

RECORDS = 20


@pytest.fixture
def file(tmp_path):
  """A file with records of up to 400 random bytes, and the offsets of the records."""
  random = np.random.default_rng(0)
  path, offsets, position = str(tmp_path / "data.tfrecord"), [], 0
  with tf.io.TFRecordWriter(path) as writer:
    for length in random.integers(1, 400, RECORDS):
      offsets.append(position)
      writer.write(random.bytes(length))
      position += int(length) + 16
  return path, [*offsets, position]


def read(path):
  return list(tfrecord_repair.read(path).as_numpy_iterator())


def flip(path, position):
  with open(path, "r+b") as opened:
    opened.seek(position)
    byte = opened.read(1)[0]
    opened.seek(position)
    opened.write(bytes([byte ^ 0xFF]))


def test_valid_file(file, tmp_path):
  path, _ = file
  assert tfrecord_repair.scan(path) == ([Segment(0, 0, RECORDS)], [])
  (tmp_path / "empty").touch()
  assert tfrecord_repair.scan(str(tmp_path / "empty")) == ([], [])


@pytest.mark.parametrize("record", [0, 7, RECORDS - 1])
@pytest.mark.parametrize(
  ("byte", "problem"),
  [
    (3, "checksum of its length does not match"),
    (9, "checksum of its length does not match"),
    (12, "checksum of its data does not match"),
    (-1, "checksum of its data does not match"),
  ],
)
def test_one_corrupt_record_is_found_and_skipped(file, record, byte, problem):
  path, offsets = file
  records_before = read(path)
  flip(path, offsets[record + 1] - 1 if byte < 0 else offsets[record] + byte)
  segments, corruptions = tfrecord_repair.scan(path)
  assert [corruption.record for corruption in corruptions] == [record]
  assert problem in corruptions[0].problem and path in str(corruptions[0])
  read_segments = [list(tfrecord_repair.read_segment(path, segment)) for segment in segments]
  assert [*itertools.chain(*read_segments)] == records_before[:record] + records_before[
    record + 1 :
  ]
  for segment, records in zip(segments, read_segments, strict=True):
    assert records[0] == records_before[segment.first_record]


@pytest.mark.parametrize(
  ("cut", "problem"), [(5, "within the header"), (14, "ends after 2 of its")]
)
def test_truncated_file(file, cut, problem):
  path, offsets = file
  os.truncate(path, offsets[12] + cut)
  segments, corruptions = tfrecord_repair.scan(path)
  assert segments == [Segment(0, 0, 12)]
  assert [corruption.record for corruption in corruptions] == [12] and problem in corruptions[
    0
  ].problem


def test_foreign_bytes_over_several_records(file):
  """The foreign bytes are longer than a search chunk."""
  path, offsets = file
  records_before = read(path)
  content = pathlib.Path(path).read_bytes()
  noise = np.random.default_rng(1).bytes((1 << 20) + 12345)
  pathlib.Path(path).write_bytes(content[: offsets[4] + 5] + noise + content[offsets[9] :])
  segments, corruptions = tfrecord_repair.scan(path)
  assert [corruption.record for corruption in corruptions] == [4]
  assert [segment.records for segment in segments] == [4, RECORDS - 9]
  assert list(tfrecord_repair.read_segment(path, segments[1])) == records_before[9:]


def test_several_corruptions(file):
  path, offsets = file
  for record in (2, 3, 15):
    flip(path, offsets[record] + 13)
  segments, corruptions = tfrecord_repair.scan(path)
  assert [corruption.record for corruption in corruptions] == [2, 3, 15]
  assert sum(segment.records for segment in segments) == RECORDS - 3


def test_compressed_file(tmp_path):
  path = str(tmp_path / "data.tfrecord.gz")
  with tf.io.TFRecordWriter(path, "GZIP") as writer:
    for _ in range(RECORDS):
      writer.write(np.random.default_rng(0).bytes(100))
  assert tfrecord_repair.scan(path, "GZIP") == ([Segment(0, 0, RECORDS)], [])
  os.truncate(path, os.path.getsize(path) // 2)
  _, corruptions = tfrecord_repair.scan(path, "GZIP")
  assert len(corruptions) == 1 and "nothing after it can be read" in corruptions[0].problem
