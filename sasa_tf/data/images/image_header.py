"""Reads the headers of JPEG and PNG files without decoding them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

START_OF_SCAN, HUFFMAN_TABLES = 0xDA, 0xC4
_END_OF_IMAGE = 0xD9
# All start-of-frame markers: 0xC0 to 0xCF except those of tables and extensions.
FRAMES = frozenset(range(0xC0, 0xD0)) - {HUFFMAN_TABLES, 0xC8, 0xCC}
_WITHOUT_CONTENT = frozenset({0x01, *range(0xD0, 0xD9)})  # temporary, restart, start of image


class JpegSegment(NamedTuple):
  """A segment of a JPEG file: its marker, and where its content begins and ends."""

  marker: int
  start: int
  end: int


def jpeg_segments(encoded: bytes) -> Iterator[JpegSegment]:
  """Yields the segments of a JPEG file; the compressed data after a start of scan is skipped.

  Ends without an error at the first bytes that are no segment.
  """
  position = 2
  while position + 4 <= len(encoded) and encoded[position] == 0xFF:
    marker = encoded[position + 1]
    if marker == 0xFF:  # padding
      position += 1
    elif marker in _WITHOUT_CONTENT:
      position += 2
    elif marker == _END_OF_IMAGE:
      return
    else:
      end = position + 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
      yield JpegSegment(marker, position + 4, end)
      position = end_of_scan(encoded, end) if marker == START_OF_SCAN else end


def end_of_scan(encoded: bytes, start: int) -> int:
  """Returns the position of the marker that ends the compressed data from `start` on."""
  position = encoded.find(b"\xff", start)
  while 0 <= position < len(encoded) - 1:
    following = encoded[position + 1]
    if following == 0xFF:
      position += 1
    elif following == 0 or 0xD0 <= following <= 0xD7:  # an escaped 0xFF, a restart marker
      position = encoded.find(b"\xff", position + 2)
    else:
      return position
  return len(encoded)


def stored_size(encoded: bytes, image_format: str) -> tuple[int, int] | None:
  """Returns the (height, width) of the stored pixels, None if the header is invalid.

  Args:
    encoded: content of the file.
    image_format: "jpeg" or "png".
  """
  if image_format == "png":
    header = encoded[12:24]
    if len(header) < 12 or not header.startswith(b"IHDR"):
      return None
    return int.from_bytes(header[8:], "big"), int.from_bytes(header[4:8], "big")
  for segment in jpeg_segments(encoded):
    if segment.marker in FRAMES:
      # Precision (1 byte), height (2), width (2).
      size = encoded[segment.start + 1 : segment.start + 5]
      return int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
  return None


def may_have_exif(encoded: bytes, image_format: str) -> bool:
  """Returns whether a file holds the bytes that an EXIF block begins with."""
  return (b"eXIf" if image_format == "png" else b"Exif\0") in encoded
