"""Corrupt files that decode are found by --verify=full; valid files are not."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from sasa_tf.data.classification import image_folder
from sasa_tf.data.conversion_report import conversion_report
from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.images import notes
from sasa_tf.data.images.options import ImageOptions
from sasa_tf.data.tfrecord.image_example import load_image

from . import image_files

FULL = ImageOptions(verify="full")
KINDS = {
  "baseline": {},
  "optimized": {"optimize": True},
  "progressive": {"progressive": True},
  "restart markers": {"restart_marker_rows": 1},
}


def _jpeg(pixels, **options):
  content = io.BytesIO()
  Image.fromarray(pixels).save(content, "JPEG", **options)
  return content.getvalue()


@pytest.fixture(scope="module")
def photo():
  return datasets.load_sample_image("china.jpg")[::3, ::3]


def _scan(encoded):
  """Returns where the compressed data of the first scan begins, and where the file ends."""
  start = encoded.index(b"\xff\xda")
  return start + 2 + struct.unpack(">H", encoded[start + 2 : start + 4])[0], len(encoded) - 2


def _found(encoded):
  try:
    load_image(encoded, FULL)
  except BrokenImageError:
    return True
  return False


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_within_the_data_are_found(photo, kind):
  encoded = _jpeg(photo, **KINDS[kind])
  start, end = _scan(encoded)
  missed = 0
  for position in np.linspace(start, end - 2000, 20).astype(int):
    for length in (32, 512):
      missed += not _found(encoded[:position] + bytes(length) + encoded[position + length :])
  # Zeros in the refinements of a progressive file are bits of coefficients.
  assert missed <= (8 if kind == "progressive" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_were_cut_and_closed_are_found(photo, kind):
  encoded = _jpeg(photo, **KINDS[kind])
  start, end = _scan(encoded)
  for position in np.linspace(start + 100, end - 20, 20).astype(int):
    assert _found(encoded[:position] + b"\xff\xd9")


@pytest.mark.parametrize("kind", KINDS)
def test_valid_files_are_accepted(photo, kind):
  images = [
    photo,
    photo[:1, :1],
    np.zeros([600, 700, 3], np.uint8),
    np.full([64, 64, 3], 255, np.uint8),
    np.tile(image_files.pixels(8, 8), [20, 20, 1]),
    np.zeros([64, 64], np.uint8),
  ]
  for image in images:
    for quality in (5, 75, 100):
      assert load_image(_jpeg(image, quality=quality, **KINDS[kind]), FULL).notes == []


def test_by_default_corrupt_images_are_converted_and_counted(photo, tmp_path):
  encoded = _jpeg(photo)
  start, end = _scan(encoded)
  (tmp_path / "in/cat").mkdir(parents=True)
  (tmp_path / "in/cat/a.jpg").write_bytes(encoded)
  (tmp_path / "in/cat/b.jpg").write_bytes(encoded[: (start + end) // 2] + b"\xff\xd9")
  summary = image_folder.convert(tmp_path / "in", tmp_path / "out", num_processes=1)
  assert summary.splits["train"].notes == {notes.DECODER_WARNING: 1}
  report = conversion_report(summary, "image_folder", "x")
  assert "data is corrupt (--verify=full lists and skips them): 1" in report
  summary = image_folder.convert(tmp_path / "in", tmp_path / "full", verify="full", num_processes=1)
  assert (summary.splits["train"].examples, summary.splits["train"].skipped) == (1, 1)
  skipped = (tmp_path / "full/skipped-train.txt").read_text()
  assert "b.jpg: corrupt JPEG (Corrupt JPEG data: premature end of data segment)" in skipped


def test_every_corrupt_byte_of_a_png_is_found():
  encoded = image_files.png(20, 30)
  assert load_image(encoded, FULL).format == "png"
  for position in range(8, len(encoded)):
    corrupt = bytearray(encoded)
    corrupt[position] ^= 0x10
    assert _found(bytes(corrupt))
  assert _found(encoded[:-12]) and _found(encoded[:-1])
