"""Valid and broken image files for the tests."""

import numpy as np
import tensorflow as tf

# Two frames of 1x1 pixels.
ANIMATED_GIF = (
  b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
  + b"!\xf9\x04\x00\x0a\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00" * 2
  + b";"
)


def pixels(height=12, width=10, channels=3, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def jpeg(height=12, width=10, channels=3, seed=0, **options):
  return tf.io.encode_jpeg(pixels(height, width, channels, seed), **options).numpy()


def png(height=12, width=10, channels=3, seed=0):
  return tf.io.encode_png(pixels(height, width, channels, seed)).numpy()


def broken_files():
  """Returns {file name: (content, part of the expected message)}."""
  return {
    "zero.jpg": (b"", "empty file"),
    "text.jpg": (b"This is not an image.\n", "neither JPEG nor PNG"),
    "truncated.jpg": (jpeg()[:-40], "truncated or corrupt JPEG"),
    "header_only.JPEG": (jpeg()[:30], "truncated or corrupt JPEG"),
    "truncated.png": (png()[:-40], "truncated or corrupt PNG"),
    "header_only.png": (png()[:8], "truncated or corrupt PNG"),
    "animation.png": (ANIMATED_GIF, "GIF data"),
    "bitmap.jpg": (bitmap(), "BMP data"),
  }


def bitmap():
  """Returns a BMP of one pixel."""
  header = b"BM" + (58).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
  size = (40).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2
  return header + size + b"\x01\x00\x18\x00" + bytes(24) + b"\x01\x02\x03\x00"


def write_class_folders(root, classes=("cat", "dog"), images=6):
  """Writes one PNG and several JPEG files per class, of different sizes; returns the root."""
  for label, name in enumerate(classes):
    (root / name).mkdir(parents=True)
    for i in range(images):
      encoded = png if i == 0 else jpeg
      suffix = "PNG" if i == 0 else "jpg"
      (root / name / f"{i}.{suffix}").write_bytes(encoded(8 + i, 9 + label, seed=i))
  return root
