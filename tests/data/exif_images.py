"""Images with EXIF blocks for the tests."""

import io
import struct

import numpy as np
from PIL import ExifTags, Image

# Where the displayed image has the pixels [top left, top right, bottom left, bottom right] of the
# stored one, which are numbered 0 to 3.
CORNERS = {
  1: (0, 1, 2, 3),
  2: (1, 0, 3, 2),
  3: (3, 2, 1, 0),
  4: (2, 3, 0, 1),
  5: (0, 2, 1, 3),
  6: (2, 0, 3, 1),
  7: (3, 1, 2, 0),
  8: (1, 3, 0, 2),
}
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)


def quarters(height=32, width=48):
  """Returns pixels with one color per quarter, numbered as in CORNERS."""
  pixels = np.empty([height, width, 3], np.uint8)
  for number, color in enumerate(COLORS):
    top, left = divmod(number, 2)
    pixels[
      top * height // 2 : (top + 1) * height // 2, left * width // 2 : (left + 1) * width // 2
    ] = color
  return pixels


def quarters_of(pixels):
  """Returns which color each quarter of the pixels has, [top left, ..., bottom right]."""
  height, width = pixels.shape[:2]
  found = []
  for top in (height // 4, 3 * height // 4):
    for left in (width // 4, 3 * width // 4):
      found.append(int(np.abs(COLORS.astype(int) - pixels[top, left]).sum(-1).argmin()))
  return tuple(found)


def encode(pixels, orientation=1, image_format="JPEG", **options):
  """Returns an image file with an EXIF orientation."""
  image = Image.fromarray(pixels)
  exif = Image.Exif()
  exif[ExifTags.Base.Make] = "maker"
  exif[ExifTags.Base.Orientation] = orientation
  content = io.BytesIO()
  options = {"quality": 95, "lossless": True, **options}
  image.save(content, image_format, exif=exif, **options)
  return content.getvalue()


def tiff_block(orientation, order="<", value_type=3, entries=1, tag=0x0112):
  """Returns an EXIF block with one entry, in one byte order."""
  start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
  value = struct.pack(
    f"{order}I" if value_type == 4 else f"{order}HH", orientation, *[0] * (value_type != 4)
  )
  return start + struct.pack(f"{order}HHHI", entries, tag, value_type, 1) + value


def with_segments(jpeg, *contents, marker=0xE1):
  """Returns a JPEG file with segments after its start."""
  segments = b"".join(
    bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for content in contents
  )
  return jpeg[:2] + segments + jpeg[2:]
