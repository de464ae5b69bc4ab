"""Files that are no TFRecord files are named before a training starts."""

import gzip
import os
import struct

import pytest
import tensorflow as tf

from sasa_tf.data.integrity.foreign_files import foreign_kind
from sasa_tf.data.integrity.tfrecord_repair import scan


def record_bytes(tmp_path):
  with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
    writer.write(b"text" * 999)
  return (tmp_path / "records").read_bytes()


@pytest.mark.parametrize(
  ("content", "kind"),
  [
    (b"root:x:0:0:root:/root:/bin/bash\n" * 99, "a text file"),
    ("é".encode() * 999, "a text file"),  # a character is cut at the end of the sample
    (b'{"train": {}}', "a text file"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image"),
    (b"PK\x03\x04\x14\0", "a ZIP archive"),
    (b"name" + bytes(253) + b"ustar  \0" + bytes(250), "a tar archive"),
    (gzip.compress(b"x", mtime=0), "compressed with gzip (file_type is tfrecord_compressed"),
    (b"\x80\x81\0" * 99, ""),  # perhaps corrupt records
    (b"", ""),
  ],
)
def test_kinds(content, kind, tmp_path):
  (tmp_path / "file").write_bytes(content)
  found = foreign_kind(str(tmp_path / "file"))
  assert found.startswith(kind) and bool(found) == bool(kind)


def test_records_of_text_are_records(tmp_path):
  content = record_bytes(tmp_path)
  assert foreign_kind(str(tmp_path / "records")) == ""
  assert "without compression" in foreign_kind(str(tmp_path / "records"), "GZIP")
  for data, kind in (
    (gzip.compress(content), ""),
    (gzip.compress(b"text"), "a text file in gzip"),
    (gzip.compress(content)[:15], ""),
    (os.urandom(9) + b"\0\xff", "not compressed with gzip"),
  ):
    (tmp_path / "file").write_bytes(data)
    assert foreign_kind(str(tmp_path / "file"), "GZIP") == kind


def test_length_of_more_than_any_memory_is_a_problem(tmp_path):
  """TensorFlow allocates the length of a record if its checksum matches, and crashes."""
  length = struct.pack("<Q", 1 << 60)
  checksum = 0x8E4E23C4  # masked CRC-32C of this length
  (tmp_path / "file").write_bytes(length + struct.pack("<I", checksum) + bytes(99))
  assert "first record has a length of 1,152,921" in foreign_kind(str(tmp_path / "file"))


def test_file_without_any_record_is_questioned(tmp_path):
  (tmp_path / "file").write_bytes(b"\x80\x81\0" * 999)
  segments, (corruption,) = scan(str(tmp_path / "file"))
  assert not segments and "no record follows, so it may be no TFRecord" in str(corruption)
