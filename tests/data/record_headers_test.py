"""Records of absurd length, at which TensorFlow crashes."""

import os
import struct

import pytest
import tensorflow as tf

from sasa_tf.data.integrity import tfrecord_repair
from sasa_tf.data.integrity.foreign_files import foreign_kind
from sasa_tf.data.integrity.record_headers import find_endless_record

RECORDS = 5


def write(path, lengths=(), after=0):
  """Writes records of a few bytes, then headers of these lengths, then records again."""
  with tf.io.TFRecordWriter(str(path)) as writer:
    for _ in range(RECORDS):
      writer.write(b"abc")
  for length in lengths:
    with path.open("ab") as file:
      file.write(_header(length) + b"abc" + bytes(4))
  if after:
    with tf.io.TFRecordWriter(str(path) + ".more") as writer:
      for _ in range(after):
        writer.write(b"abc")
    with path.open("ab") as file:
      file.write(path.with_name(f"{path.name}.more").read_bytes())
  return str(path)


def _header(length):
  """A length with its masked CRC-32C."""
  data, crc = struct.pack("<Q", length), 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return data + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@pytest.mark.parametrize("length", [2**60, 2**64 - 1, 2**40, 2**31 + 1])
def test_first_endless_record_is_found(tmp_path, length):
  path = write(tmp_path / "a", [length, 2**50])
  assert find_endless_record(path) == (RECORDS, length)
  assert find_endless_record(path, 0.0) == (RECORDS, length)


def test_other_files_have_none(tmp_path):
  for path in (
    write(tmp_path / "valid"),
    write(tmp_path / "truncated", [1000]),
    str(tmp_path / "missing"),
    str(tmp_path),
  ):
    assert find_endless_record(path) is None
  (tmp_path / "empty").touch()
  (tmp_path / "short").write_bytes(b"abc")
  # No checksum: TensorFlow itself notices.
  (tmp_path / "corrupt").write_bytes(struct.pack("<Q", 2**60) + bytes(8))
  os.mkfifo(tmp_path / "pipe")
  for name in ("empty", "short", "corrupt", "pipe"):
    assert find_endless_record(str(tmp_path / name)) is None


def test_scan_reads_around_endless_records(tmp_path):
  path = write(tmp_path / "a", [2**60], after=3)
  segments, corruptions = tfrecord_repair.scan(path)
  assert [segment.records for segment in segments] == [RECORDS, 3]
  assert [corruption.record for corruption in corruptions] == [RECORDS]
  assert "its length is 1,152,921,504,606,846,976 bytes" in corruptions[0].problem
  first = tmp_path / "first"
  first.write_bytes((tmp_path / "a").read_bytes()[RECORDS * 19 :])
  assert "first record has a length of" in foreign_kind(str(first))
