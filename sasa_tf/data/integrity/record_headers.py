"""The headers of TFRecords: their checksums, and lengths that no record has."""

from __future__ import annotations

import math
import mmap
import os
import struct
import time

import numpy as np

# A record: length (8 bytes), checksum of the length (4), data, checksum of the data (4).
HEADER_BYTES, FRAME_BYTES = 12, 16
# The limit of protocol buffers. TensorFlow crashes when it allocates the bytes of longer ones.
_MAX_EXAMPLE_BYTES = 1 << 31
_RECORDS_BETWEEN_CLOCKS = 1000


def is_header(start: bytes) -> bool:
  """Returns whether bytes start with the header of a record, whose checksum matches."""
  data = np.frombuffer(start[:HEADER_BYTES], np.uint8)
  return data.size == HEADER_BYTES and bool(header_mask(data)[0])


def is_endless(header: bytes) -> bool:
  """Returns whether bytes start with a header of a record that is too long for an example."""
  return int.from_bytes(header[:8], "little") > _MAX_EXAMPLE_BYTES and is_header(header)


def find_endless_record(file: str, seconds: float = math.inf) -> tuple[int, int] | None:
  """Returns the index and the length of the first record that is too long for an example.

  Follows the lengths up to the first one whose checksum does not match; files on remote file
  systems are not read.

  Args:
    file: path of a TFRecord file without compression.
    seconds: time after which the rest of the file is not read.

  Returns:
    None if no such record is found.
  """
  if not os.path.isfile(file) or not os.path.getsize(file):
    return None
  end = time.monotonic() + seconds
  with (
    open(file, "rb") as opened,
    mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
  ):
    position, index = 0, 0
    while position + HEADER_BYTES <= len(content):
      (length,) = struct.unpack_from("<Q", content, position)
      if length > _MAX_EXAMPLE_BYTES:
        header = content[position : position + HEADER_BYTES]
        return (index, length) if is_header(header) else None
      position += length + FRAME_BYTES
      index += 1
      if index % _RECORDS_BETWEEN_CLOCKS == 0 and time.monotonic() > end:
        break
  return None


def header_mask(data: np.ndarray) -> np.ndarray:
  """Returns for each offset whether a length with a matching checksum is there.

  Args:
    data: [number of bytes] uint8.

  Returns:
    [number of bytes - 11] bool.
  """
  count = data.size - HEADER_BYTES + 1
  if count < 1:
    return np.zeros(0, bool)
  crc = np.full(count, 0xFFFFFFFF, np.uint32)
  for index in range(8):
    crc = _CRC_TABLE[(crc ^ data[index : index + count]) & 0xFF] ^ (crc >> 8)
  crc ^= np.uint32(0xFFFFFFFF)
  # The mask of the TFRecord format, which allows records to contain records.
  masked = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
  stored = np.zeros(count, np.uint32)
  for index in range(4):
    stored |= data[8 + index : 8 + index + count].astype(np.uint32) << np.uint32(8 * index)
  return masked == stored


def _crc_table() -> np.ndarray:
  """Returns the byte table of CRC-32C (Castagnoli)."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
  return table


_CRC_TABLE = _crc_table()
