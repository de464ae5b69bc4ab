"""Boxes of images with an EXIF orientation enclose their objects in the records."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.data.detection import coco, voc
from sasa_tf.data.detection.annotated_images import detection_example
from sasa_tf.data.detection.boxes import AnnotatedImage, Box
from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.images import notes
from sasa_tf.data.images.options import ImageOptions

from . import box_data, exif_images

NAMES = ("background", "cat")
STORED_BOX = (4.0, 8.0, 20.0, 14.0)  # xmin, ymin, xmax, ymax


def _stored_pixels(height, width):
  """Returns black pixels that are white within STORED_BOX."""
  pixels = np.zeros([height, width, 3], np.uint8)
  xmin, ymin, xmax, ymax = map(int, STORED_BOX)
  pixels[ymin:ymax, xmin:xmax] = 255
  return pixels


def _white_box(pixels):
  rows, columns = (np.flatnonzero((pixels > 128).all(-1).any(axis)) for axis in (1, 0))
  return tuple(map(float, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)))


def _example(orientation, size, box, flag="displayed", height=32, width=48):
  encoded = exif_images.encode(_stored_pixels(height, width), orientation, "PNG")
  image = AnnotatedImage("in/a.png", "a.png", 1, "a.xml", size, [Box(*box, 1, name="object 1")])
  return detection_example(encoded, image, NAMES, ImageOptions(exif_boxes=flag))


def _assert_encloses(example):
  """Checks record and annotation against the pixels; returns the box."""
  feature = tf.train.Example.FromString(example.serialized).features.feature
  pixels = tf.io.decode_image(feature["image/encoded"].bytes_list.value[0]).numpy()
  height, width = pixels.shape[:2]
  assert feature["image/height"].int64_list.value == [height]
  assert feature["image/width"].int64_list.value == [width]
  edges = ("xmin", "ymin", "xmax", "ymax")
  box = [feature[f"image/object/bbox/{edge}"].float_list.value[0] for edge in edges]
  expected = _white_box(pixels)
  assert np.multiply(box, [width, height] * 2) == pytest.approx(expected)
  assert example.annotations.boxes[0][:4] == pytest.approx(expected)
  assert example.annotations[2:4] == (height, width)
  return expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_pixels_are_turned(orientation):
  flag = "stored" if orientation < 5 else "displayed"  # the size decides from 5 on
  example = _example(orientation, (32, 48), STORED_BOX, flag)
  _assert_encloses(example)
  found = notes.STORED_BY_FLAG if orientation < 5 else notes.STORED_BY_SIZE
  assert example.notes == (() if orientation == 1 else (notes.TURNED, found))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_displayed_image_are_unchanged(orientation):
  box = _assert_encloses(_example(orientation, None, STORED_BOX, "stored"))
  size, flag = ((48, 32), "stored") if orientation >= 5 else ((32, 48), "displayed")
  example = _example(orientation, size, box, flag)
  assert _assert_encloses(example) == box
  found = notes.DISPLAYED_BY_SIZE if orientation >= 5 else notes.DISPLAYED_BY_FLAG
  assert example.notes == (() if orientation == 1 else (notes.TURNED, found))


@pytest.mark.parametrize("size", [None, (40, 40)])
@pytest.mark.parametrize("flag", ["displayed", "stored"])
def test_the_flag_decides_without_a_size_and_for_square_images(size, flag):
  side = {} if size is None else {"height": 40, "width": 40}
  box = _assert_encloses(_example(6, size, STORED_BOX, "stored", **side))
  example = _example(6, size, STORED_BOX if flag == "stored" else box, flag, **side)
  _assert_encloses(example)
  assert (
    example.notes[1]
    == {
      "displayed": notes.DISPLAYED_BY_FLAG,
      "stored": notes.STORED_BY_FLAG,
    }[flag]
  )


def test_another_size_raises():
  message = "for 30x20 pixels, but the image has 48x32, displayed as 32x48: was it resized"
  with pytest.raises(BrokenImageError, match=message):
    _example(6, (20, 30), STORED_BOX)


def test_problems_name_the_annotated_coordinates():
  example = _example(6, (32, 48), (40.0, 8.0, 60.0, 14.0))
  assert "x 40 to 60, y 8 to 14) in 48x32 pixels" in example.problems[0].message
  assert example.annotations.boxes[0][:4] == (18.0, 40.0, 24.0, 48.0)


def _write_orientations(folder):
  """Writes one image per orientation, annotated in its stored or displayed pixels."""
  folder.mkdir(parents=True)
  for orientation in range(1, 9):
    content = exif_images.encode(_stored_pixels(32, 48), orientation, quality=90, subsampling=0)
    (folder / f"{orientation}.jpg").write_bytes(content)


def _check_records(output):
  for example in box_data.examples(output).values():
    pixels = tf.io.decode_jpeg(example["encoded"][0]).numpy()
    height, width = pixels.shape[:2]
    box = [example[f"object/bbox/{edge}"][0] for edge in ("xmin", "ymin", "xmax", "ymax")]
    assert np.multiply(box, [width, height] * 2) == pytest.approx(_white_box(pixels), abs=0.01)


def test_voc_with_all_orientations(tmp_path):
  _write_orientations(tmp_path / "voc/JPEGImages")
  (tmp_path / "voc/Annotations").mkdir()
  for orientation in range(1, 9):
    corners = (STORED_BOX[0] + 1, STORED_BOX[1] + 1, *STORED_BOX[2:])  # the first pixel is 1
    xml = box_data.voc_xml(box_data.voc_object("cat", corners), height=32, width=48)
    (tmp_path / f"voc/Annotations/{orientation}.xml").write_text(xml)
  summary = voc.convert(tmp_path / "voc", tmp_path / "out", exif_boxes="stored", num_processes=1)
  _check_records(tmp_path / "out")
  assert summary.splits["train"].notes == {
    notes.TURNED: 7,
    notes.STORED_BY_FLAG: 3,
    notes.STORED_BY_SIZE: 4,
  }
  lines = notes.report_lines(summary.splits["train"].notes)
  assert lines[0] == "stored upright as their EXIF orientation says: 7"
  assert any(line.endswith("by the annotated size, turned too: 4") for line in lines)
  summary = voc.convert(tmp_path / "voc", tmp_path / "other", num_processes=1)
  lines = notes.report_lines(summary.splits["train"].notes)
  assert lines[-1].endswith("convert again with --exif_boxes=stored")


def test_coco_with_all_orientations(tmp_path):
  xmin, ymin, xmax, ymax = STORED_BOX
  content = box_data.coco_content(
    image_ids=range(1, 9),
    boxes=[(i, 1, [xmin, ymin, xmax - xmin, ymax - ymin]) for i in range(1, 9)],
  )
  for image in content["images"]:
    image |= {"height": 32, "width": 48}
  root = box_data.write_coco(tmp_path / "coco", content)
  for file in (root / "images").iterdir():
    file.unlink()
  (root / "images").rmdir()
  _write_orientations(root / "images")
  arguments = (root / "images", root / "instances.json", tmp_path / "out")
  coco.convert(*arguments, exif_boxes="stored", num_processes=1)
  _check_records(tmp_path / "out")
