"""Reads TFRecord files without TensorFlow operations.

The checks before a training read some records. Operations would initialize TensorFlow, which must
not happen before a strategy for several workers is created.
"""

from __future__ import annotations

import contextlib
import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

# A record: length (8 bytes), checksum of the length (4), data, checksum of the data (4).
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_MAX_RECORD_BYTES = 1 << 30
# Reading a corrupt or truncated file.
_READ_ERRORS = (EOFError, OSError, zlib.error, tf.errors.OpError)


def read(file: str, compression: str = "") -> Iterator[bytes]:
  """Yields the serialized records of a file up to its end or the first truncated one.

  Checksums are not compared.

  Args:
    file: path of the file.
    compression: "" or "GZIP".
  """
  with _open(file, compression) as content, contextlib.suppress(*_READ_ERRORS):
    while len(header := content.read(_LENGTH_BYTES + _CHECKSUM_BYTES)) > _LENGTH_BYTES:
      (length,) = struct.unpack_from("<Q", header)
      if length > _MAX_RECORD_BYTES:
        return
      data = content.read(length + _CHECKSUM_BYTES)
      if len(data) < length + _CHECKSUM_BYTES:
        return
      yield data[:length]


def is_empty(file: str, compression: str = "") -> bool:
  """Returns whether a file has neither a record nor bytes of a corrupt one."""
  with _open(file, compression) as content:
    try:
      return not content.read(1)
    except _READ_ERRORS:
      return False


def read_start(file: str, size: int, compression: str = "") -> bytes:
  """Returns the first bytes of a file, decompressed; b"" if they cannot be read."""
  with _open(file, compression) as content:
    try:
      return content.read(size)
    except _READ_ERRORS:
      return b""


def parse(record: bytes) -> tf.train.Example | None:
  """Returns the example of a record, None if it is not one."""
  try:
    return tf.train.Example.FromString(record)
  except DecodeError:
    return None


@contextlib.contextmanager
def _open(file: str, compression: str) -> Iterator[Any]:
  """Opens the decompressed content of a file."""
  with tf.io.gfile.GFile(file, "rb") as raw:
    yield gzip.GzipFile(fileobj=raw) if compression else raw
