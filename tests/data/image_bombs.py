"""Small image files of very many pixels."""

import struct
import zlib


def png(height, width):
  """A black PNG image of one bit per pixel; PNG's compression makes it 8,000 times smaller."""
  compressor = zlib.compressobj(9)
  row = bytes(1 + -(-width // 8))
  data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    for name, content in chunks
  )


def jpeg(height, width):
  """A JPEG file with the header of a large image and the end right after it."""
  frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
  return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


def gif(height, width):
  """A GIF file with the header of a large image."""
  return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00;"
