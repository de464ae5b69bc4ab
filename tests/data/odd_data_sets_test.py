"""Conversions of data sets that hold the odd files of all systems at once."""

import json

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.data.classification import image_folder
from sasa_tf.data.conversion_report import conversion_report
from sasa_tf.data.detection import coco, voc

from . import box_data
from . import odd_data_sets as odd

OPTIONS = {"verify": "full", "num_processes": 1}
FAULTY = {
  "zeros.jpg": "corrupt JPEG",
  "closed.jpg": "corrupt JPEG",
  "cut.jpg": "truncated or corrupt JPEG",
  "empty.jpg": "empty file",
  "bomb.png": "60,000 x 60,000 pixels are more than",
  "really.gif.jpg": "GIF data",
}


@pytest.fixture
def root(tmp_path):
  return tmp_path / odd.DIRECTORY


def _assert_upright(record):
  """Checks that pixels are as displayed, without a tag; returns the class of the object."""
  encoded = record["encoded"][0]
  assert b"Exif" not in encoded or record["format"] == [b"jpeg"]
  pixels = tf.io.decode_image(encoded).numpy()
  assert pixels.shape == (odd.HEIGHT, odd.WIDTH, 3)
  rows, columns = (np.flatnonzero((pixels > 190).any((axis, 2))) for axis in (1, 0))
  edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
  np.testing.assert_allclose(edges, odd.BOX, atol=2)  # JPEG
  return odd.label_of(pixels)


def _assert_boxes(output, split):
  """Checks records and annotation file against the pixels; returns the number of boxes."""
  records = box_data.examples(output, split)
  written = box_data.annotations(output, split)
  names = {image["id"]: image["file_name"] for image in written["images"]}
  assert set(names.values()) == set(records)
  for box in written["annotations"]:
    record = records[names[box["image_id"]]]
    x, y, width, height = box["bbox"]
    assert (x, y, x + width, y + height) == odd.BOX and box["iscrowd"] == 0
    assert record["object/class/text"] == [odd.CLASSES[_assert_upright(record)].encode()]
    edges = [record[f"object/bbox/{edge}"][0] for edge in ("xmin", "ymin", "xmax", "ymax")]
    expected = np.divide(odd.BOX, [odd.WIDTH, odd.HEIGHT] * 2)
    np.testing.assert_allclose(edges, expected, atol=1e-6)
  return len(written["annotations"])


def _assert_listed(output, split, reasons):
  """Checks that a list of skipped images has these, {part of the path: part of the reason}."""
  lines = (output / f"skipped-{split}.txt").read_text().splitlines()
  assert len(lines) == len(reasons)
  for name, reason in reasons.items():
    assert sum(name in line and reason in line for line in lines) == 1, (name, lines)


def test_image_folder(root, capsys):
  output = root / "records"
  summary = image_folder.convert(odd.write_image_folder(root / "photos"), output, **OPTIONS)
  warnings = capsys.readouterr().err
  for name in (*odd.JUNK, "Thumbs.db", "._*"):
    assert f"{name} 6" in warnings
  assert "differ only in case or Unicode normalization: 'Cat', 'cat'" in warnings
  classes = (output / "labels.txt").read_text().splitlines()
  assert set(classes) == set(odd.CLASSES)
  _assert_listed(output, "train", FAULTY)
  assert summary.splits["train"].examples == 8 * len(odd.CLASSES) + 1
  for record in box_data.examples(output).values():
    assert classes[record["class/label"][0]] == odd.CLASSES[_assert_upright(record)]
  report = conversion_report(summary, "image_folder --input=...", "an_experiment")
  assert ": 41 of 47 images in " in report and "EXIF orientation says: 35" in report
  assert f"--output='{output}' --split=validation" in report


def test_voc(root, capsys):
  output = root / "records"
  summary = voc.convert(odd.write_voc(root / "voc"), output, **OPTIONS)
  warnings = capsys.readouterr().err
  assert "Image set val: names with a path or suffix, which was removed: 13" in warnings
  reasons = FAULTY | {
    "undeclared.xml": "iconv -f",
    "entity.xml": "<!DOCTYPE a>",
    "missing.xml": "found none",
  }
  listed = [(output / f"skipped-{s}.txt").read_text() for s in ("train", "validation")]
  (output / "skipped-both.txt").write_text("".join(listed))
  _assert_listed(output, "both", reasons)
  assert [_assert_boxes(output, split) for split in ("train", "validation")] == [9, 7]
  (line,) = box_data.problems(output)
  assert line.endswith("infinite.xml: with an invalid size, 1e999 x inf, ignored")
  (line,) = box_data.problems(output, "validation")
  assert "digits.xml: object 1 (狗, x 0 to inf, y 0 to 20)" in line
  report = conversion_report(summary, "voc --input=...", "an_experiment")
  for text in ("displayed image, by the annotated size: 4", "stored pixels, by the annotated size"):
    assert report.count(text) == 1
  assert (output / "labels.txt").read_text().split() == ["background", *sorted(odd.CLASSES)]


def test_coco(root):
  output = root / "records"
  file = odd.write_coco(root / "coco") / "instances.json"
  coco.convert(file.parent / "images", file, output, **OPTIONS)
  reasons = FAULTY | {
    "images[20]": "integers from 0 to 2^63 - 1, received 9223372036854775808",
    "images[21]": "two images have the id 900",
    "images[22]": "two images have the id 900",
    "../outside.jpg": "outside of the folder",
    "a\\x00b.jpg": "control characters",
    "\\ud800.jpg": "not valid Unicode",
    "/etc/passwd": "absolute file_name",
    "missing.jpg": "No such file",
  }
  _assert_listed(output, "train", reasons)
  assert _assert_boxes(output, "train") == 8 + 4 + 1
  kinds = [
    "annotation 21 (image_id 9223372036854775808): with an invalid image_id, dropped",
    "annotation 22 (image_id 900): with an ambiguous image_id, dropped",
    "annotation 23 (image_id 900): with an ambiguous image_id, dropped",
    "image 20 (infinite.jpg): with an invalid size",
    "image 19 (digits.jpg): annotation 19 (狗, x 1 to inf, y 1 to 5) in 90x60 pixels: not a finite",
  ]
  lines = box_data.problems(output)
  assert len(lines) == len(kinds)
  for kind in kinds:
    assert sum(kind in line for line in lines) == 1
  json.loads((output / "train.json").read_text(), parse_constant=pytest.fail)
