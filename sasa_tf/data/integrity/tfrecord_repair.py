"""Reads around corrupt bytes in TFRecord files: finds the readable segments between them."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sasa_tf.data.integrity.parse_errors import reason
from sasa_tf.data.integrity.record_headers import (
  FRAME_BYTES,
  HEADER_BYTES,
  find_endless_record,
  header_mask,
  is_endless,
)

_SEARCH_CHUNK_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 18


class Corruption(NamedTuple):
  """A part of a file that cannot be used.

  Attributes:
    file: path of the file.
    record: index of the record, from 0; consecutive unreadable bytes count as one record.
    problem: what is wrong.
  """

  file: str
  record: int
  problem: str

  def __str__(self) -> str:
    return f"{self.file}, record {self.record} (from 0): {self.problem}"


class Segment(NamedTuple):
  """Consecutive readable records.

  Attributes:
    start: offset of the first record in bytes.
    first_record: index of the first record.
    records: number of records.
  """

  start: int
  first_record: int
  records: int


def read(file: str, compression: str = "") -> tf.data.Dataset:
  """Returns the serialized records of a file; reading corrupt bytes raises `DataLossError`."""
  return tf.data.TFRecordDataset(file, compression, _BUFFER_BYTES)


def scan(file: str, compression: str = "") -> tuple[list[Segment], list[Corruption]]:
  """Reads a file once and returns its readable segments and its corruptions.

  Args:
    file: path of the file.
    compression: "" or "GZIP"; nothing after a corruption of a compressed file can be read.
  """
  size = tf.io.gfile.stat(file).length
  segments, corruptions = [], []
  position = record = 0
  while position < size:
    count, length, problem = _read_until_corruption(file, position, compression)
    if count:
      segments.append(Segment(position, record, count))
    record += count
    position += length
    if compression:
      if problem:
        corruptions.append(Corruption(file, record, f"{problem}; nothing after it can be read"))
      break
    if position == size:
      break
    # TensorFlow reports no error if a file ends within the header of a record.
    problem, position = _diagnose(file, position, size)
    corruptions.append(Corruption(file, record, problem))
    record += 1
  return segments, corruptions


def read_segment(file: str, segment: Segment, compression: str = "") -> Iterator[bytes]:
  """Yields the serialized records of a segment."""
  with _file_from(file, segment.start) as path:
    yield from read(path, compression).take(segment.records).as_numpy_iterator()


@contextlib.contextmanager
def _file_from(file: str, start: int) -> Iterator[str]:
  """Yields the path of a file with the content from an offset on."""
  if start == 0:
    yield file
    return
  with tempfile.NamedTemporaryFile(prefix="sasa_tf_records_") as rest:
    with tf.io.gfile.GFile(file, "rb") as opened:
      opened.seek(start)
      rest.write(opened.read())
    rest.flush()
    yield rest.name


def _read_until_corruption(file: str, start: int, compression: str) -> tuple[int, int, str | None]:
  """Returns the number of records before the first corruption, their bytes, and the problem.

  A record of absurd length is a corruption that must not be read.
  """
  initial = (np.int64(0), np.int64(0))

  def add(total, data):
    return total[0] + 1, total[1] + tf.cast(tf.strings.length(data), tf.int64) + FRAME_BYTES

  with _file_from(file, start) as path:
    dataset = read(path, compression)
    if not compression and (endless := find_endless_record(path)):
      dataset = dataset.take(endless[0])
    try:
      count, length = dataset.reduce(initial, add)
      problem = None
    except tf.errors.OpError as error:
      problem = reason(error)
      count, length = dataset.ignore_errors().reduce(initial, add)
  return int(count), int(length), problem


def _diagnose(file: str, position: int, size: int) -> tuple[str, int]:
  """Returns the problem of the record at an offset, and the offset of the next valid one."""
  with tf.io.gfile.GFile(file, "rb") as opened:
    opened.seek(position)
    rest = np.frombuffer(opened.read(), np.uint8)
  where = f"at byte {position} of {size}"
  if rest.size < HEADER_BYTES:
    return f"{where}: the file ends within the header of the record", size
  length = struct.unpack("<Q", rest[:8].tobytes())[0]
  if not header_mask(rest[:HEADER_BYTES])[0]:
    problem = f"{where}: the checksum of its length does not match"
    if position == 0 and _next_header(rest) == size:
      return f"{problem}, and no record follows, so it may be no TFRecord file", size
  elif is_endless(rest[:HEADER_BYTES].tobytes()):
    problem = f"{where}: its length is {length:,} bytes"
  elif length + FRAME_BYTES > rest.size:
    return f"{where}: the file ends after {rest.size - HEADER_BYTES} of its {length} bytes", size
  else:
    problem = f"{where}: the checksum of its data does not match"
    following = rest[FRAME_BYTES + length :]
    if following.size == 0 or (
      following.size >= HEADER_BYTES and header_mask(following[:HEADER_BYTES])[0]
    ):
      return problem, position + FRAME_BYTES + length
  return problem, position + _next_header(rest)


def _next_header(rest: np.ndarray) -> int:
  """Returns the offset of the next record after the first byte, or of the end."""
  for start in range(1, rest.size, _SEARCH_CHUNK_BYTES):
    # A header may span two chunks.
    chunk = rest[start : start + _SEARCH_CHUNK_BYTES + HEADER_BYTES - 1]
    for candidate in np.flatnonzero(header_mask(chunk)):
      offset = start + int(candidate)
      length = struct.unpack("<Q", rest[offset : offset + 8].tobytes())[0]
      if offset + FRAME_BYTES + length <= rest.size:
        return offset
  return rest.size
