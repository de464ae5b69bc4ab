"""TFRecord files whose bytes are not what was written: what is damaged, and where to read on."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# A record is its length (8 bytes), the checksum of these (4), its data, the checksum of these (4).
_HEADER, _FRAME = 12, 16
_SEARCHED_AT_ONCE = 1 << 20
_BUFFER_BYTES = 1 << 18


class Damage(NamedTuple):
  """A stretch of a file that cannot be used.

  Attributes:
    file: its path.
    record: number of the record, from 0; a stretch that cannot be read counts as one.
    problem: what is wrong with it.
  """

  file: str
  record: int
  problem: str

  def __str__(self) -> str:
    return f"{self.file}, record {self.record} (from 0): {self.problem}"


class Segment(NamedTuple):
  """Records one after the other that can be read.

  Attributes:
    start: offset of the first one, in bytes.
    first_record: its number.
    records: how many.
  """

  start: int
  first_record: int
  records: int


def read(file: str, compression: str = "") -> tf.data.Dataset:
  """Returns the serialized records of a file, for a damage raises `DataLossError`."""
  return tf.data.TFRecordDataset(file, compression, _BUFFER_BYTES)


def segments(file: str, compression: str = "") -> tuple[list[Segment], list[Damage]]:
  """Returns what can be read of a file, and what cannot: reads it once, without keeping anything.

  Args:
    file: path.
    compression: "" or "GZIP"; behind a damage of a compressed file nothing can be read.
  """
  size = tf.io.gfile.stat(file).length
  found, damages = [], []
  position = record = 0
  while position < size:
    count, length, problem = _readable(file, position, compression)
    if count:
      found.append(Segment(position, record, count))
    record += count
    position += length
    if compression:
      if problem:
        damages.append(Damage(file, record, f"{problem}; nothing behind it can be read"))
      break
    if position == size:
      break
    # Told by TensorFlow or not: a file that ends within the head of a record, it takes for whole.
    problem, position = _look_at(file, position, size)
    damages.append(Damage(file, record, problem))
    record += 1
  return found, damages


def records_of(file: str, segment: Segment, compression: str = "") -> Iterator[bytes]:
  """Yields the serialized records of a segment."""
  with _from(file, segment.start) as path:
    yield from read(path, compression).take(segment.records).as_numpy_iterator()


@contextlib.contextmanager
def _from(file: str, start: int) -> Iterator[str]:
  """Yields a file whose first record is the one at an offset of the other file."""
  if start == 0:
    yield file
    return
  with tempfile.NamedTemporaryFile(prefix="sasa_tf_records_") as rest:
    with tf.io.gfile.GFile(file, "rb") as opened:
      opened.seek(start)
      rest.write(opened.read())
    rest.flush()
    yield rest.name


def _readable(file: str, start: int, compression: str) -> tuple[int, int, str | None]:
  """Returns the number of records up to the first damage, and of their bytes, and the damage."""
  nothing = (np.int64(0), np.int64(0))

  def add(so_far, data):
    return so_far[0] + 1, so_far[1] + tf.cast(tf.strings.length(data), tf.int64) + _FRAME

  with _from(file, start) as path:
    dataset = read(path, compression)
    try:
      count, length = dataset.reduce(nothing, add)
      problem = None
    except tf.errors.OpError as error:
      problem = error.message.splitlines()[0]
      count, length = dataset.ignore_errors().reduce(nothing, add)
  return int(count), int(length), problem


def _look_at(file: str, position: int, size: int) -> tuple[str, int]:
  """Returns what is wrong with the record at an offset, and the offset of the next one."""
  with tf.io.gfile.GFile(file, "rb") as opened:
    opened.seek(position)
    rest = np.frombuffer(opened.read(), np.uint8)
  where = f"at byte {position} of {size}"
  if rest.size < _HEADER:
    return f"{where}: the file ends within the head of the record", size
  length = struct.unpack("<Q", rest[:8].tobytes())[0]
  if not _heads(rest[:_HEADER])[0]:
    problem = f"{where}: the checksum of its length does not match"
  elif length + _FRAME > rest.size:
    return f"{where}: the file ends after {rest.size - _HEADER} of its {length} bytes", size
  else:
    problem = f"{where}: the checksum of its data does not match"
    behind = rest[_FRAME + length :]
    if behind.size == 0 or (behind.size >= _HEADER and _heads(behind[:_HEADER])[0]):
      return problem, position + _FRAME + length
  return problem, position + _next_head(rest)


def _next_head(rest: np.ndarray) -> int:
  """Returns the offset of the next record after the first byte, or the end."""
  for start in range(1, rest.size, _SEARCHED_AT_ONCE):
    # The head of a record may lie across the boundary.
    part = rest[start : start + _SEARCHED_AT_ONCE + _HEADER - 1]
    for candidate in np.flatnonzero(_heads(part)):
      offset = start + int(candidate)
      length = struct.unpack("<Q", rest[offset : offset + 8].tobytes())[0]
      if offset + _FRAME + length <= rest.size:
        return offset
  return rest.size


def _heads(data: np.ndarray) -> np.ndarray:
  """Returns for each offset whether a length with its checksum stands there.

  Args:
    data: [number of bytes] uint8.

  Returns:
    [number of bytes - 11] bool.
  """
  count = data.size - _HEADER + 1
  if count < 1:
    return np.zeros(0, bool)
  crc = np.full(count, 0xFFFFFFFF, np.uint32)
  for index in range(8):
    crc = _CRC_TABLE[(crc ^ data[index : index + count]) & 0xFF] ^ (crc >> 8)
  crc ^= np.uint32(0xFFFFFFFF)
  # As TFRecords mask checksums, so that a record may hold records.
  masked = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
  stored = np.zeros(count, np.uint32)
  for index in range(4):
    stored |= data[8 + index : 8 + index + count].astype(np.uint32) << np.uint32(8 * index)
  return masked == stored


def _crc_table() -> np.ndarray:
  """The byte table of CRC-32C (Castagnoli)."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
  return table


_CRC_TABLE = _crc_table()
