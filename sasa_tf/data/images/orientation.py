"""Orientation of encoded images: the EXIF tag, and pixels as they are displayed.

Cameras store the pixels as the sensor delivers them, and in the EXIF tag Orientation how to turn
them for display. TensorFlow's decoders ignore the tag. These functions consist of TensorFlow
operations, so that exported models honor it as the conversion of the training data does.

Orientations: 1 as stored, 2 mirrored left to right, 3 turned by 180 degrees, 4 mirrored top to
bottom, 5 transposed, 6 turned by 90 degrees clockwise for display, 7 transposed along the other
diagonal, 8 turned by 90 degrees counterclockwise for display.
"""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.data.images.byte_access import constant, equals, find_chunk, number, read_bytes

_TAG = 0x0112
_SHORT, _LONG = 3, 4  # types of a value
_ENTRY_BYTES, _MAX_ENTRIES = 12, 1000
# The marker of EXIF segments, and those of segments that may come before.
_APP0, _APP1, _APP15, _COMMENT, _FILL = 0xE0, 0xE1, 0xEF, 0xFE, 0xFF


def decode_upright(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes an image as it is displayed.

  Args:
    encoded: scalar string, JPEG, PNG, GIF, BMP or WebP. Of an animation, the first frame is
      decoded.

  Returns:
    uint8 [H, W, 3].

  Raises:
    tf.errors.InvalidArgumentError: if the image cannot be decoded.
  """
  start = _start(encoded)
  pixels = tf.cond(
    _is_webp(start),
    # TensorFlow decodes WebP only to the number of channels of the file.
    lambda: tf.io.decode_image(_still_webp(encoded), expand_animations=False)[..., :3],
    lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
  )
  orientation = _orientation(encoded, start)
  return to_upright(tf.ensure_shape(pixels, [None, None, 3]), orientation)


def to_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """Turns stored pixels [H, W, C] as an orientation from 1 to 8 (int scalar) requires."""

  def turned() -> tf.Tensor:
    transposed = tf.transpose(pixels, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    bottom_up = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8], orientation.dtype))
    mirrored = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7], orientation.dtype))
    return tf.raw_ops.Reverse(tensor=transposed, dims=tf.stack([bottom_up, mirrored, False]))

  orientation = tf.convert_to_tensor(orientation)
  result = tf.cond(orientation > 1, turned, lambda: pixels)
  return tf.ensure_shape(result, [None, None, pixels.shape[-1]])


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the orientation of an encoded image, int32 scalar from 1 to 8.

  The tag is read from the first EXIF block of JPEG, PNG and WebP data; in JPEG data, it is before
  the tables, as the standard requires. Without a valid tag, and for any other bytes, the
  orientation is 1.

  Args:
    encoded: scalar string.
  """
  return _orientation(encoded, _start(encoded))


def _start(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the bytes that identify the format."""
  return read_bytes(encoded, constant(0), 12)


def _orientation(encoded: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
  block = tf.case(
    [
      (equals(start[:3], b"\xff\xd8\xff"), lambda: _jpeg_exif(encoded)),
      (equals(start[:4], b"\x89PNG"), lambda: _png_exif(encoded)),
      (_is_webp(start), lambda: _webp_exif(encoded)),
    ],
    default=lambda: constant(-1),
  )
  orientation = tf.cond(
    block >= 0, lambda: _orientation_of_block(encoded, block), lambda: constant(1)
  )
  return tf.cast(orientation, tf.int32)


def _jpeg_exif(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the position of the EXIF block of JPEG data, or -1."""

  def visit(position: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # A segment: 0xFF, marker, length (2 bytes, which count themselves), content.
    marker, length = header[1], number(header[2:4])
    is_marker = header[0] == _FILL
    is_exif = is_marker & (marker == _APP1) & equals(header[4:9], b"Exif\0")
    continues = is_marker & (((marker >= _APP0) & (marker <= _APP15)) | (marker >= _COMMENT))
    following = tf.where(marker == _FILL, position + 1, position + 2 + length)
    return is_exif, tf.where(continues, following, -1)

  segment = find_chunk(encoded, 2, 9, visit)
  return tf.where(segment >= 0, segment + 10, -1)


def _png_exif(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the position of the EXIF block of PNG data, or -1."""

  def visit(position: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # A chunk: length (4 bytes), type, content, checksum (4 bytes).
    return equals(header[4:], b"eXIf"), position + 12 + number(header[:4])

  chunk = find_chunk(encoded, 8, 8, visit)
  return tf.where(chunk >= 0, chunk + 8, -1)


def _is_webp(start: tf.Tensor) -> tf.Tensor:
  return equals(start[:4], b"RIFF") & equals(start[8:12], b"WEBP")


def _webp_chunk(encoded: tf.Tensor, start: tf.Tensor | int, *names: bytes) -> tf.Tensor:
  """Returns the position of the first chunk with one of the names, or -1."""

  def visit(position: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # A chunk: type, length (4 bytes, little-endian), content, padding to an even length.
    length = number(header[4:], little_endian=True)
    found = tf.reduce_any(tf.stack([equals(header[:4], name) for name in names]))
    return found, position + 8 + length + length % 2

  return find_chunk(encoded, start, 8, visit)


def _webp_exif(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the position of the EXIF block of WebP data, or -1."""
  chunk = _webp_chunk(encoded, 12, b"EXIF")
  prefix = read_bytes(encoded, tf.maximum(chunk, 0) + 8, 6)  # that of JPEG, from some encoders
  block = chunk + tf.where(equals(prefix, b"Exif\0\0"), constant(14), constant(8))
  return tf.where(chunk >= 0, block, -1)


def _still_webp(encoded: tf.Tensor) -> tf.Tensor:
  """Returns the first frame of an animated WebP as a still WebP, and a still one unchanged.

  TensorFlow decodes animations to four channels, and writes beyond its buffer if the file declares
  three. The transparency of the frame is dropped, as that of still images.
  """
  start = read_bytes(encoded, constant(0), 21)
  # The first chunk, VP8X, holds flags; the second lowest bit says that there are frames.
  animated = equals(start[12:16], b"VP8X") & (start[20] // 2 % 2 == 1)

  def first_frame() -> tf.Tensor:
    frame = _webp_chunk(encoded, 12, b"ANMF")
    # The frame: its header (8 bytes), position, size, duration and flags (16), chunks.
    chunk = _webp_chunk(encoded, tf.maximum(frame, 0) + 24, b"VP8 ", b"VP8L")
    header = read_bytes(encoded, tf.maximum(chunk, 0), 8)
    length = number(header[4:], little_endian=True)
    length += 8 + length % 2
    image = tf.strings.substr(encoded, tf.maximum(chunk, 0), length)
    size = tf.cast(4 + length, tf.uint32)[None]
    size = tf.strings.reduce_join(_as_text(tf.bitcast(size, tf.uint8)))
    still = tf.strings.join([b"RIFF", size, b"WEBP", image])
    return tf.where((frame >= 0) & (chunk >= 0), still, "")  # without a frame: not decodable

  return tf.cond(animated, first_frame, lambda: encoded)


def _as_text(digits: tf.Tensor) -> tf.Tensor:
  """Returns bytes as strings of one byte."""
  return tf.gather(tf.constant([bytes([byte]) for byte in range(256)]), tf.cast(digits, tf.int32))


def _orientation_of_block(encoded: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
  """Returns the orientation in the EXIF block (a TIFF file) that begins at a position."""
  # Byte order (2 bytes), 42, position of the first directory.
  header = read_bytes(encoded, start, 8)
  little = equals(header[:2], b"II")
  valid = (little | equals(header[:2], b"MM")) & (number(header[2:4], little_endian=little) == 42)
  directory = start + number(header[4:], little_endian=little)
  entries = number(read_bytes(encoded, directory, 2), little_endian=little)
  valid &= entries > 0
  entries = tf.clip_by_value(entries, 1, _MAX_ENTRIES)
  # An entry: tag (2 bytes), type (2), number of values (4), the value or its position (4).
  table = read_bytes(encoded, directory + 2, _ENTRY_BYTES * entries)
  table = tf.reshape(table, [-1, _ENTRY_BYTES])
  tags = number(table[:, :2], little_endian=little)
  types = number(table[:, 2:4], little_endian=little)
  short = number(table[:, 8:10], little_endian=little)
  long = number(table[:, 8:12], little_endian=little)
  values = tf.where(types == _SHORT, short, tf.where(types == _LONG, long, 0))
  wanted = valid & (tags == _TAG)
  value = values[tf.argmax(tf.cast(wanted, tf.int32))]
  return tf.where(tf.reduce_any(wanted) & (value >= 1) & (value <= 8), value, 1)
