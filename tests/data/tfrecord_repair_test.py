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
  """Records of 0 to 400 bytes of noise, and their offsets."""
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


def test_healthy_file(file, tmp_path):
  path, _ = file
  assert tfrecord_repair.segments(path) == ([Segment(0, 0, RECORDS)], [])
  (tmp_path / "empty").touch()
  assert tfrecord_repair.segments(str(tmp_path / "empty")) == ([], [])


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
def test_one_record_is_lost_and_named(file, record, byte, problem):
  path, offsets = file
  whole = read(path)
  flip(path, offsets[record + 1] - 1 if byte < 0 else offsets[record] + byte)
  found, damages = tfrecord_repair.segments(path)
  assert [damage.record for damage in damages] == [record]
  assert problem in damages[0].problem and path in str(damages[0])
  kept = [list(tfrecord_repair.records_of(path, segment)) for segment in found]
  assert [*itertools.chain(*kept)] == whole[:record] + whole[record + 1 :]
  for segment, records in zip(found, kept, strict=True):
    assert records[0] == whole[segment.first_record]


@pytest.mark.parametrize(("cut", "problem"), [(5, "within the head"), (14, "ends after 2 of its")])
def test_truncated_file(file, cut, problem):
  path, offsets = file
  os.truncate(path, offsets[12] + cut)
  found, damages = tfrecord_repair.segments(path)
  assert found == [Segment(0, 0, 12)]
  assert [damage.record for damage in damages] == [12] and problem in damages[0].problem


def test_stretch_of_foreign_bytes(file):
  """Overwritten over several records, and longer than is searched at once."""
  path, offsets = file
  whole = read(path)
  content = pathlib.Path(path).read_bytes()
  noise = np.random.default_rng(1).bytes((1 << 20) + 12345)
  pathlib.Path(path).write_bytes(content[: offsets[4] + 5] + noise + content[offsets[9] :])
  found, damages = tfrecord_repair.segments(path)
  assert [damage.record for damage in damages] == [4]
  assert [segment.records for segment in found] == [4, RECORDS - 9]
  assert list(tfrecord_repair.records_of(path, found[1])) == whole[9:]


def test_several_damages(file):
  path, offsets = file
  for record in (2, 3, 15):
    flip(path, offsets[record] + 13)
  found, damages = tfrecord_repair.segments(path)
  assert [damage.record for damage in damages] == [2, 3, 15]
  assert sum(segment.records for segment in found) == RECORDS - 3


def test_compressed_file(tmp_path):
  path = str(tmp_path / "data.tfrecord.gz")
  with tf.io.TFRecordWriter(path, "GZIP") as writer:
    for _ in range(RECORDS):
      writer.write(np.random.default_rng(0).bytes(100))
  assert tfrecord_repair.segments(path, "GZIP") == ([Segment(0, 0, RECORDS)], [])
  os.truncate(path, os.path.getsize(path) // 2)
  _, damages = tfrecord_repair.segments(path, "GZIP")
  assert len(damages) == 1 and "nothing behind it can be read" in damages[0].problem
