"""Recognizes images that decode to gigabytes, by their headers alone."""

from __future__ import annotations

from sasa_tf.data.images.image_header import stored_size
from sasa_tf.data.images.options import MAX_PIXELS

# Decoded bytes per encoded byte. Photographs have 5 to 100.
_MAX_RATIO = 200
_CHANNELS = 3
_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"


def bomb_problem(encoded: bytes) -> str:
  """Returns what is wrong with a decompression bomb; "" for other images.

  A bomb has more than `MAX_PIXELS` pixels in a file that is too small to hold them. Large images of
  the usual size in bytes are none.

  Args:
    encoded: content of an image file; JPEG, PNG and GIF are recognized.
  """
  size = _size(encoded)
  if size is None:
    return ""
  height, width = size
  decoded = _CHANNELS * height * width
  if height * width <= MAX_PIXELS or decoded <= _MAX_RATIO * len(encoded):
    return ""
  return (
    f"a decompression bomb: {len(encoded):,} bytes for {width:,} x {height:,} pixels, which decode "
    f"to {decoded / 2**30:.1f} GiB"
  )


def _size(encoded: bytes) -> tuple[int, int] | None:
  """Returns (height, width) of the header."""
  if encoded.startswith(_PNG):
    return stored_size(encoded, "png")
  if encoded.startswith(_JPEG):
    return stored_size(encoded, "jpeg")
  if encoded.startswith(_GIF) and len(encoded) >= 10:
    return int.from_bytes(encoded[8:10], "little"), int.from_bytes(encoded[6:8], "little")
  return None
