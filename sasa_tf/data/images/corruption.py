"""Finds corrupt data in JPEG and PNG files that decoders tolerate.

JPEG data has no checksums. A decoder notices corrupt data only if it leads to an invalid code, or
to more or fewer pixels than expected: libjpeg then fills the image and prints a warning. PNG data
has a checksum per chunk, which TensorFlow's decoder does not compare for the last one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from sasa_tf.data.images.image_header import (
  HUFFMAN_TABLES,
  START_OF_SCAN,
  end_of_scan,
  jpeg_segments,
)

# Of zeros in compressed data: as many bits are 40 or more equal coefficients or hundreds of blocks.
_MAX_ZERO_BYTES = 15


def find_corruption(encoded: bytes, image_format: str) -> str | None:
  """Returns what is wrong with a file that decodes without warnings, or None.

  Args:
    encoded: content of the file.
    image_format: "jpeg" or "png".
  """
  return _png_corruption(encoded) if image_format == "png" else _jpeg_corruption(encoded)


def _png_corruption(encoded: bytes) -> str | None:
  position = 8
  while position + 12 <= len(encoded):
    length = int.from_bytes(encoded[position : position + 4], "big")
    end = position + 8 + length
    if end + 4 > len(encoded):
      return f"the chunk at byte {position} is incomplete"
    if zlib.crc32(encoded[position + 4 : end]) != int.from_bytes(encoded[end : end + 4], "big"):
      return f"the checksum of the chunk at byte {position} does not match"
    if encoded[position + 4 : position + 8] == b"IEND":
      return None
    position = end + 4
  return "the end is missing"


class _Scan(NamedTuple):
  """A scan: where its compressed data begins and ends, and whether zeros in it can be valid."""

  start: int
  end: int
  zeros_are_valid: bool


def _jpeg_corruption(encoded: bytes) -> str | None:
  for scan in _scans(encoded):
    if not scan.zeros_are_valid:
      position = encoded.find(bytes(_MAX_ZERO_BYTES + 1), scan.start, scan.end)
      if position >= 0:
        return f"zeros from byte {position} on in the compressed data"
  return None


def _scans(encoded: bytes) -> Iterator[_Scan]:
  zero_symbols: dict[int, int] = {}  # table class and number -> symbol of the code of zeros
  for segment in jpeg_segments(encoded):
    if segment.marker == HUFFMAN_TABLES:
      zero_symbols |= _zero_symbols(encoded[segment.start : segment.end])
    elif segment.marker == START_OF_SCAN:
      header = encoded[segment.start : segment.end]
      end = end_of_scan(encoded, segment.end)
      yield _Scan(segment.end, end, _zeros_are_valid(header, zero_symbols))


def _zero_symbols(tables: bytes) -> dict[int, int]:
  """Returns the symbol whose code consists of zeros, the first, of each table in a segment."""
  symbols = {}
  while len(tables) > 17:
    symbols[tables[0]] = tables[17]
    tables = tables[17 + sum(tables[1:17]) :]
  return symbols


def _zeros_are_valid(header: bytes, zero_symbols: dict[int, int]) -> bool:
  """Returns whether zeros are the compressed data of uniform areas.

  They are if the code of zeros means "no difference" and "no further coefficients" in all tables of
  the scan, as optimized tables of images with uniform areas have it. In refinements of a
  progressive file, zeros are bits of coefficients.

  Args:
    header: content of the start of the scan.
    zero_symbols: see `_zero_symbols`.
  """
  components = header[0] if header else 0
  if len(header) < 2 * components + 4:
    return True
  first, last, approximation = header[2 * components + 1 : 2 * components + 4]
  if approximation >> 4:
    return True
  for selectors in header[2 : 2 * components + 1 : 2]:
    dc, ac = selectors >> 4, 0x10 | (selectors & 15)
    if first == 0 and zero_symbols.get(dc, 0) != 0:
      return False
    symbol = zero_symbols.get(ac, 0)
    if last > 0 and (symbol & 15 or symbol == 0xF0):
      return False
  return True
