"""Measures how often corrupt JPEG files are found: python -m tests.data.corruption_rates.

Prints the rows of `image_corruption` in docs/results.json: percentages of 240 copies of six photos,
each with one defect at a random position of the compressed data.
"""

import io
import json

import numpy as np
from PIL import Image
from sklearn import datasets

from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.images.options import ImageOptions
from sasa_tf.data.tfrecord.image_example import load_image

COPIES = 40
ENCODERS = {"baseline": {}, "progressive": {"progressive": True}}


def compressed_data(encoded):
  """Returns where the compressed data of the first scan begins, and where the end marker is."""
  start = encoded.index(b"\xff\xda")
  length = int.from_bytes(encoded[start + 2 : start + 4], "big")
  return start + 2 + length, len(encoded) - 2


def overwritten(encoded, position, content):
  """Returns the file with other content from a position on."""
  return encoded[:position] + content + encoded[position + len(content) :]


def defects(random):
  """Returns {name: (affected bytes, function of file and position that returns a corrupt file)}."""
  found = {}
  for count in (16, 64, 512, 4096):
    name = f"{count:,} zeros"
    found[name] = count, lambda e, p, n=count: overwritten(e, p, bytes(n))
  for count in (1, 16, 64, 512, 4096):
    name = f"{count:,} random byte{'s' if count > 1 else ''}"
    found[name] = count, lambda e, p, n=count: overwritten(e, p, random.bytes(n))
  found["512 bytes missing"] = 512, lambda e, p: e[:p] + e[p + 512 :]
  found["cut and closed with an end marker"] = 1, lambda e, p: e[:p] + b"\xff\xd9"
  return found


def photos(options):
  """Returns JPEG files of two photos in three sizes."""
  files = []
  for name in ("china.jpg", "flower.jpg"):
    photo = Image.fromarray(datasets.load_sample_image(name))
    for width in (1280, 640, 320):
      content = io.BytesIO()
      photo.resize((width, width * 3 // 4)).save(content, "JPEG", quality=85, **options)
      files.append(content.getvalue())
  return files


def reaction(encoded, verify):
  """Returns what a conversion does with a file: "skipped", "counted" or "accepted"."""
  try:
    return "counted" if load_image(encoded, ImageOptions(verify=verify)).notes else "accepted"
  except BrokenImageError:
    return "skipped"


def rates(files, count, corrupt, random):
  """Returns the percentages that are skipped, counted, and skipped by --verify=full."""
  reactions = []
  for encoded in files:
    start, end = compressed_data(encoded)
    for position in random.integers(start, end - count - 1, COPIES):
      changed = corrupt(encoded, int(position))
      if changed != encoded:
        reactions.append((reaction(changed, "decode"), reaction(changed, "full")))
  default, full = zip(*reactions, strict=True)
  counts = default.count("skipped"), default.count("counted"), full.count("skipped")
  return [round(100 * each / len(reactions)) for each in counts]


def main():
  """Prints the rows."""
  random = np.random.default_rng(0)
  files = {name: photos(options) for name, options in ENCODERS.items()}
  for name, (count, corrupt) in defects(random).items():
    measured = [rates(each, count, corrupt, random) for each in files.values()]
    row = [name, *([skipped, counted] for skipped, counted, _ in measured)]
    print(json.dumps([*row, *(full for *_, full in measured)]) + ",", flush=True)


if __name__ == "__main__":
  main()
