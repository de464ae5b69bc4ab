"""Hostile entries never stop a conversion: they are listed, and the others are converted."""

import html
import json
import os

import pytest

from sasa_tf.data.detection import coco, voc
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.values import MAX_INT64, as_integer, as_name

from . import box_data
from .hostile_values import HOSTILE_VALUES

GOOD = 4242  # id of a valid image and its annotation


def _dataset(tmp_path):
  content = box_data.coco_content(
    [GOOD], boxes=[(GOOD, 1, [3, 5, 17, 10])], categories=((1, "cat"), (GOOD, "dog"))
  )
  root = box_data.write_coco(tmp_path / "coco", content)
  box_data.write_image(root / "images/other.jpg")
  return content, root


def _convert(content, root, output, **options):
  (root / "instances.json").write_text(json.dumps(content))
  images, file = root / "images", root / "instances.json"
  return coco.convert(images, file, output, **{"num_processes": 1, **options}).splits["train"]


def _assert_all_accounted_for(content, output, split):
  """Checks that each entry was converted or listed, and the valid ones were converted."""
  example = box_data.examples(output)[f"{GOOD}.jpg"]
  assert example["source_id"] == [str(GOOD).encode()]
  assert b"cat" in example["object/class/text"]
  assert split.examples + split.skipped == len(content["images"])
  skipped = output / "skipped-train.txt"
  num_lines = skipped.read_bytes().count(b"\n") if skipped.exists() else 0
  assert num_lines == split.skipped
  problems = (
    (output / "problems-train.txt").read_bytes() if split.annotation_stats.problems else b""
  )
  assert problems.count(b"\n") == sum(split.annotation_stats.problems.values())
  written = box_data.annotations(output)
  assert all(0 <= image["id"] < 2**63 for image in written["images"])
  json.loads((output / "train.json").read_text(), parse_constant=pytest.fail)
  dropped = problems.count(b", dropped\n") - problems.count(b": categories[")
  assert len(written["annotations"]) + dropped == len(content["annotations"])


@pytest.mark.parametrize("key", ["id", "file_name", "height", "width", None])
def test_images(tmp_path, key):
  content, root = _dataset(tmp_path)
  for number, value in enumerate(HOSTILE_VALUES, start=1000):
    entry = {"id": number, "file_name": "other.jpg", "height": 24, "width": 40}
    content["images"].append({**entry, key: value} if key else value)
  content["images"].append({name: entry[name] for name in entry if name != key})
  split = _convert(content, root, tmp_path / "out")
  _assert_all_accounted_for(content, tmp_path / "out", split)


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "area", "iscrowd", None])
def test_annotations(tmp_path, key):
  content, root = _dataset(tmp_path)
  entry = {"id": 1, "image_id": GOOD, "category_id": 1, "bbox": [3, 5, 17, 10], "area": 9}
  for value in HOSTILE_VALUES:
    content["annotations"].append({**entry, key: value} if key else value)
  content["annotations"].append({name: entry[name] for name in entry if name != key})
  split = _convert(content, root, tmp_path / "out")
  _assert_all_accounted_for(content, tmp_path / "out", split)


@pytest.mark.parametrize("position", range(4))
def test_coordinates(tmp_path, position):
  content, root = _dataset(tmp_path)
  for value in HOSTILE_VALUES:
    bbox = [3, 5, 17, 10]
    bbox[position] = value
    content["annotations"].append({"image_id": GOOD, "category_id": 1, "bbox": bbox})
  split = _convert(content, root, tmp_path / "out")
  _assert_all_accounted_for(content, tmp_path / "out", split)


@pytest.mark.parametrize("category_ids", ["original", "contiguous"])
@pytest.mark.parametrize("key", ["id", "name", "supercategory", None])
def test_categories(tmp_path, key, category_ids):
  content, root = _dataset(tmp_path)
  names = set()
  for number, value in enumerate(HOSTILE_VALUES, start=100):
    entry = {"id": number, "name": f"c{number}"}
    is_valid_id = key == "id" and as_integer(value, 0, MAX_INT64) is not None
    is_repeated_name = key == "name" and as_name(value) in names  # without white space
    if not is_valid_id and not is_repeated_name:
      content["categories"].append({**entry, key: value} if key else value)
      names |= {as_name(value)} - {None}
  split = _convert(content, root, tmp_path / "out", category_ids=category_ids)
  _assert_all_accounted_for(content, tmp_path / "out", split)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_lists_of_other_types_raise(tmp_path, key):
  content, root = _dataset(tmp_path)
  for value in HOSTILE_VALUES:
    if not isinstance(value, list):
      with pytest.raises(DatasetError, match=f"no list of objects '{key}'"):
        _convert({**content, key: value}, root, tmp_path / "out")


def test_strict_raises_for_an_invalid_image(tmp_path):
  content, root = _dataset(tmp_path)
  content["images"].append({"id": 2**63, "file_name": "a.jpg"})
  with pytest.raises(DatasetError, match=r"images\[1\]: the ids of images.*9223372036854775808"):
    _convert(content, root, tmp_path / "out", strict=True)
  assert not (tmp_path / "out").exists()


def test_invalid_images_are_not_held_out(tmp_path):
  content, root = _dataset(tmp_path)
  for i in range(3):
    content["images"].append({"id": i, "file_name": f"{i}.jpg"})
    box_data.write_image(root / f"images/{i}.jpg")
  content["images"] += [None] * 40
  split = _convert(content, root, tmp_path / "out", validation_fraction=0.5)
  assert (split.examples, split.skipped) == (2, 40)


def test_error_names_the_reason_if_no_image_can_be_held_out(tmp_path):
  content, root = _dataset(tmp_path)
  content["images"] = [{"id": "7"}, None]
  with pytest.raises(DatasetError, match=r"none of the 2 images .*images\[0\]: the ids of images"):
    _convert(content, root, tmp_path / "out", validation_fraction=0.5)


def test_paths_lead_nowhere_outside(tmp_path):
  content, root = _dataset(tmp_path)
  box_data.write_image(root / "outside.jpg")
  (root / "images/deep").mkdir()
  names = ["../outside.jpg", "deep/../../outside.jpg", str(root / "outside.jpg")]
  names += [name.replace("/", "\\") for name in names]
  content["images"] += [{"id": i, "file_name": name} for i, name in enumerate(names)]
  split = _convert(content, root, tmp_path / "out")
  assert (split.examples, split.skipped) == (1, len(names))
  reasons = (tmp_path / "out/skipped-train.txt").read_text().splitlines()
  assert all("outside of the folder" in line or "absolute" in line for line in reasons)


def _text(value):
  """Returns what a program may write into an XML file for a value, or None."""
  text = str(value) if not isinstance(value, str) else html.escape(value)
  printable = text.encode("utf-8", "ignore").decode()
  return None if {"\0", "\x1b"} & set(text) or printable != text else text


@pytest.mark.parametrize("key", ["name", "difficult", "xmin", "ymax", "bndbox", "width"])
def test_voc_values(tmp_path, key):
  good = box_data.voc_xml(box_data.voc_object())
  files = {"good": good}
  for number, value in enumerate(HOSTILE_VALUES):
    if (text := _text(value)) is not None:
      begin, end = good.index(f"<{key}>"), good.index(f"</{key}>")
      files[f"{number}"] = f"{good[:begin]}<{key}>{text}{good[end:]}"
  root = box_data.write_voc(tmp_path / "voc", files)
  options = {"num_processes": 1} | ({} if key == "name" else {"classes": "cat"})
  split = voc.convert(root, tmp_path / "out", **options).splits["train"]
  assert box_data.examples(tmp_path / "out")["good.jpg"]["object/is_crowd"] == [0]
  assert split.examples + split.skipped == len(files)
  lines = box_data.problems(tmp_path / "out")
  assert len(lines) == sum(split.annotation_stats.problems.values()) > 0
  written = box_data.annotations(tmp_path / "out")["annotations"]
  dropped = sum(line.endswith(", dropped") for line in lines)
  assert len(written) + dropped + split.skipped == len(files)


HOSTILE_XML = (
  *(
    b"",
    b"\0",
    b"\xff" * 99,
    b"<",
    b"<annotation",
    b"<annotation><object></annotation>",
    b"<html/>",
  ),
  *("<annotation>中</annotation>".encode("gbk"), b"<annotation>\xed\xa0\x80</annotation>"),
  *(b"<annotation>&a;</annotation>", b"<!DOCTYPE annotation []><annotation/>", b"[]", b"\x89PNG"),
  b'<?xml version="1.0" encoding="klingon"?><annotation>\xff</annotation>',
)


def test_voc_files(tmp_path):
  files = {f"{number}": box_data.voc_xml() for number in range(len(HOSTILE_XML))}
  root = box_data.write_voc(tmp_path / "voc", {"good": box_data.voc_xml(), **files})
  for number, content in enumerate(HOSTILE_XML):
    (root / f"Annotations/{number}.xml").write_bytes(content)
  split = voc.convert(root, tmp_path / "out", classes="cat", num_processes=1).splits["train"]
  assert (split.examples, split.skipped) == (1, len(HOSTILE_XML))
  reasons = (tmp_path / "out/skipped-train.txt").read_text().splitlines()
  for number in range(len(HOSTILE_XML)):
    assert sum(f"Annotations/{number}.xml: " in line for line in reasons) == 1


def test_pipes_are_skipped(tmp_path):
  root = box_data.write_voc(tmp_path / "voc", dict.fromkeys("abc", box_data.voc_xml()))
  for name in ("Annotations/a.xml", "JPEGImages/b.jpg"):
    (root / name).unlink()
    os.mkfifo(root / name)
  split = voc.convert(root, tmp_path / "out", classes="cat", num_processes=1).splits["train"]
  assert (split.examples, split.skipped) == (1, 2)
  reasons = (tmp_path / "out/skipped-train.txt").read_text()
  assert reasons.count("not a regular file, but a pipe, socket or device") == 2


def test_voc_file_names(tmp_path):
  names = [b"a\nb", b"caf\xe9", "猫".encode(), b"\x1b[2J", b"%s", b"~", b"-"]
  root = box_data.write_voc(tmp_path / "voc", {"good": box_data.voc_xml(box_data.voc_object())})
  image = (root / "JPEGImages/good.jpg").read_bytes()
  for name in names:
    (root / "JPEGImages").joinpath(f"{name.decode('utf-8', 'surrogateescape')}.jpg").write_bytes(
      image
    )
  for name in names[::2]:
    path = root / "Annotations" / f"{name.decode('utf-8', 'surrogateescape')}.xml"
    path.write_text(box_data.voc_xml())
  split = voc.convert(root, tmp_path / "out", num_processes=1).splits["train"]
  assert (split.examples, split.skipped) == (5, 3)
  assert (tmp_path / "out/skipped-train.txt").read_bytes().count(b"\n") == 3
