import pathlib
import tarfile

import pytest

from sasa_tf.data.detection import voc
from sasa_tf.data.errors import DatasetError

from . import box_data
from .box_data import voc_object, voc_xml
from .coco_evaluation import evaluated, perfect_detections

BCCD = pathlib.Path(__file__).parents[3] / "shared/data/bccd.tar.xz"
FILES = {
  "a": voc_xml(voc_object("dog", (1, 1, 40, 24)), voc_object("cat", (3, 5, 20, 15), difficult=1)),
  "b": voc_xml(voc_object("cat", (2, 2, 9, 9))),
  "c": voc_xml(),
  "d": voc_xml(voc_object("dog", (11, 11, 30, 20))),
}
LISTS = {"train": "ac", "val": "b", "test": "d", "trainval": "abc", "cat_train": "ac"}


def _convert(root, output, **options):
  return voc.convert(root, output, **{"num_processes": 1, **options})


def _boxes(output, split="train"):
  content = box_data.annotations(output, split)
  names = {image["id"]: image["file_name"] for image in content["images"]}
  return [(names[a["image_id"]], a["category_id"], a["bbox"]) for a in content["annotations"]]


@pytest.fixture
def root(tmp_path):
  return box_data.write_voc(tmp_path / "voc", FILES, LISTS)


def test_image_sets_become_splits(root, tmp_path):
  summary = _convert(root, tmp_path / "out")
  assert {name: split.examples for name, split in summary.splits.items()} == {
    "train": 2,
    "validation": 1,
    "test": 1,
  }
  assert box_data.examples(tmp_path / "out", "train").keys() == {"a.jpg", "c.jpg"}
  assert box_data.examples(tmp_path / "out", "test").keys() == {"d.jpg"}
  assert (tmp_path / "out/labels.txt").read_text() == "background\ncat\ndog\n"


def test_records_and_annotation_file_contain_the_boxes(root, tmp_path):
  _convert(root, tmp_path / "out")
  example = box_data.examples(tmp_path / "out")["a.jpg"]
  assert example["encoded"] == [(root / "JPEGImages/a.jpg").read_bytes()]
  assert example["source_id"] == [b"1"]
  assert example["object/class/label"] == [2, 1]
  # Pixels 1 to 40 of 40 are the full width.
  assert example["object/bbox/xmin"] == pytest.approx([0, 2 / 40])
  assert example["object/bbox/xmax"] == pytest.approx([1, 20 / 40])
  assert example["object/bbox/ymin"] == pytest.approx([0, 4 / 24])
  assert example["object/bbox/ymax"] == pytest.approx([1, 15 / 24])
  assert _boxes(tmp_path / "out") == [("a.jpg", 2, [0, 0, 40, 24]), ("a.jpg", 1, [2, 4, 18, 11])]
  assert box_data.annotations(tmp_path / "out")["categories"] == [
    {"id": 1, "name": "cat"},
    {"id": 2, "name": "dog"},
  ]


def test_difficult_objects_are_crowds(root, tmp_path):
  summary = _convert(root, tmp_path / "out")
  assert box_data.examples(tmp_path / "out")["a.jpg"]["object/is_crowd"] == [0, 1]
  assert summary.splits["train"].annotation_stats.crowds == 1


def test_images_without_objects_are_converted(root, tmp_path):
  summary = _convert(root, tmp_path / "out")
  assert "object/class/label" not in box_data.examples(tmp_path / "out")["c.jpg"]
  assert summary.splits["train"].annotation_stats.images_without == 1
  assert len(box_data.annotations(tmp_path / "out")["images"]) == 2


def test_statistics_count_boxes_by_class(root, tmp_path):
  boxes = _convert(root, tmp_path / "out").splits["train"].annotation_stats
  assert boxes.by_class == {"cat": 1, "dog": 1}
  assert (boxes.most_in_an_image, boxes.problems) == (2, {})
  assert not (tmp_path / "out/problems-train.txt").exists()


def test_image_ids_are_unique_across_splits(root, tmp_path):
  _convert(root, tmp_path / "out")
  ids = {
    name: example["source_id"]
    for split in ("train", "validation", "test")
    for name, example in box_data.examples(tmp_path / "out", split).items()
  }
  assert ids == {"a.jpg": [b"1"], "b.jpg": [b"2"], "c.jpg": [b"3"], "d.jpg": [b"4"]}


def test_perfect_detections_have_average_precision_one(root, tmp_path):
  _convert(root, tmp_path / "out", image_sets="trainval:train")
  path = tmp_path / "out/train.json"
  assert evaluated(path, perfect_detections(path))[0] == pytest.approx(1.0)


def test_image_sets_can_be_selected(root, tmp_path, capsys):
  summary = _convert(root, tmp_path / "out", image_sets="trainval:train, val")
  assert {name: split.examples for name, split in summary.splits.items()} == {
    "train": 3,
    "validation": 1,
  }
  assert "Warning: images in both train and validation: 1." in capsys.readouterr().err


def test_coordinate_origin_zero(root, tmp_path):
  _convert(root, tmp_path / "out", coordinate_origin=0)
  assert _boxes(tmp_path / "out")[1] == ("a.jpg", 1, [3, 5, 17, 10])


def test_classes_can_be_selected_and_ordered(root, tmp_path, capsys):
  _convert(root, tmp_path / "out", classes="dog,cow")
  assert (tmp_path / "out/labels.txt").read_text() == "background\ndog\ncow\n"
  assert [box[:2] for box in _boxes(tmp_path / "out")] == [("a.jpg", 1)]
  assert len(box_data.examples(tmp_path / "out")) == 2
  stderr = capsys.readouterr().err
  assert "Warning: no box of class 'cow'." in stderr
  assert "Skipped boxes of classes not in --classes: 'cat'." in stderr


def test_data_set_without_image_sets(tmp_path):
  names = [f"{i:02d}" for i in range(20)]
  files = {n: voc_xml(voc_object("rare" if n < "02" else "cat")) for n in names}
  root = box_data.write_voc(tmp_path / "voc", files)
  summary = _convert(root, tmp_path / "one", split="all")
  assert summary.splits["all"].examples == 20
  summary = _convert(root, tmp_path / "two", validation_fraction=0.2)
  assert [split.examples for split in summary.splits.values()] == [16, 4]
  assert all(split.annotation_stats.by_class["rare"] == 1 for split in summary.splits.values())


def test_validation_fraction_overrides_image_sets(root, tmp_path):
  summary = _convert(root, tmp_path / "out", validation_fraction=0.25)
  assert summary.splits.keys() == {"train", "validation"}
  assert sum(split.examples for split in summary.splits.values()) == 4


def test_images_and_xml_files_in_one_folder(tmp_path):
  box_data.write_image(tmp_path / "a.png")
  (tmp_path / "a.xml").write_text(FILES["b"])
  summary = _convert(tmp_path, tmp_path / "out")
  assert summary.splits["train"].formats == {"png": 1}
  assert _boxes(tmp_path / "out") == [("a.png", 1, [1, 1, 8, 8])]


def test_files_of_other_systems_are_read_and_reported(root, tmp_path, capsys):
  for name, encoding in (("train", "utf-16"), ("val", "utf-8-sig")):
    path = root / f"ImageSets/Main/{name}.txt"
    path.write_bytes(
      "".join(f"{line}.jpg \r\n" for line in path.read_text().split()).encode(encoding)
    )
  for name, encoding in (("a", "gb2312"), ("b", "utf-8"), ("c", "big5"), ("d", "shift_jis")):
    path = root / f"Annotations/{name}.xml"
    xml = path.read_text().replace("<size>", "<folder>\u4e2d</folder>\r\n<size>")
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{xml}'.encode(encoding))
    path.rename(path.with_suffix(".XML"))
  (root / "JPEGImages/Thumbs.db").touch()
  (root / "Annotations/._a.xml").touch()
  (tmp_path / "classes.txt").write_bytes("\ufeffdog \r\ncat\r\n".encode())
  summary = _convert(root, tmp_path / "out", classes=str(tmp_path / "classes.txt"))
  assert [split.examples for split in summary.splits.values()] == [2, 1, 1]
  assert not any(split.skipped for split in summary.splits.values())
  assert _boxes(tmp_path / "out") == [("a.jpg", 1, [0, 0, 40, 24]), ("a.jpg", 2, [2, 4, 18, 11])]
  stderr = capsys.readouterr().err
  assert "Warning: ignored hidden and system files and folders: ._*, Thumbs.db." in stderr
  assert "Image set train: names with a path or suffix, which was removed: 2. The first: " in stderr
  assert "'a.jpg' is 'a'." in stderr and "no box of class" not in stderr


INVALID_BOXES = {
  "swapped corners": voc_object("cat", (20, 5, 3, 15)),
  "empty": voc_object("cat", (3, 5, 3, 5)),
  "outside the image": voc_object("cat", (50, 5, 60, 15)),
  "partly outside the image": voc_object("cat", (30, 5, 60, 15)),
  "not a finite number": voc_object("cat", ("nan", 5, 60, 15)),
  "without a readable box": voc_object("cat", ("left", 5, 60, 15)),
  "without a class": voc_object("", (3, 5, 20, 15)),
}


def test_invalid_boxes_are_listed_and_dropped_or_clipped(tmp_path):
  files = {"a": voc_xml(*INVALID_BOXES.values(), voc_object("cat")), "b": FILES["b"]}
  root = box_data.write_voc(tmp_path / "voc", files)
  summary = _convert(root, tmp_path / "out")
  assert summary.splits["train"].annotation_stats.problems == dict.fromkeys(INVALID_BOXES, 1)
  assert [box[2] for box in _boxes(tmp_path / "out") if box[0] == "a.jpg"] == [
    [29, 4, 11, 11],
    [2, 4, 18, 11],
  ]
  lines = box_data.problems(tmp_path / "out")
  assert len(lines) == len(INVALID_BOXES)
  assert all(line.startswith(f"{root}/Annotations/a.xml: object ") for line in lines)


@pytest.mark.parametrize("kind", INVALID_BOXES)
def test_strict_raises_for_every_kind_of_invalid_box(tmp_path, kind):
  root = box_data.write_voc(tmp_path / "voc", {"a": voc_xml(INVALID_BOXES[kind], voc_object())})
  with pytest.raises(
    DatasetError, match=f"a.xml: object 1.*: {kind}\\.\n.*omit --strict.*(dropped|clipped)"
  ):
    _convert(root, tmp_path / "out", strict=True)
  assert not (tmp_path / "out").exists()


def _broken_images(root):
  """Breaks images of a data set and returns {part of the path: part of the message}."""
  (root / "JPEGImages/b.jpg").unlink()
  (root / "JPEGImages/c.jpg").write_bytes(b"not an image")
  (root / "Annotations/e.xml").write_text(voc_xml(height=25))
  box_data.write_image(root / "JPEGImages/e.jpg")
  box_data.write_image(root / "JPEGImages/f.jpg")
  (root / "Annotations/g.xml").write_text("<annotation>")
  box_data.write_image(root / "JPEGImages/d.png")
  (root / "ImageSets/Main/train.txt").write_text("\n".join("abcdefgh"))
  return {
    "Annotations/b.xml": "expected one image of this name in",
    "JPEGImages/c.jpg": "neither JPEG nor PNG",
    "Annotations/d.xml": "found d.jpg and d.png",
    "JPEGImages/e.jpg": "the annotation is for 40x25 pixels, but the image has 40x24",
    "Annotations/f.xml": "file not found; an image without objects needs an annotation",
    "Annotations/g.xml": "invalid XML",
    "Annotations/h.xml": "file not found",
  }


def test_broken_images_are_skipped_and_listed(root, tmp_path):
  broken = _broken_images(root)
  summary = _convert(root, tmp_path / "out", image_sets="train")
  assert summary.splits["train"].skipped == len(broken)
  assert [image["file_name"] for image in box_data.annotations(tmp_path / "out")["images"]] == [
    "a.jpg"
  ]
  lines = (tmp_path / "out/skipped-train.txt").read_text().splitlines()
  reasons = dict(line.split(": ", 1) for line in lines)
  assert reasons.keys() == {str(root / name) for name in broken}
  for name, reason in broken.items():
    assert reason in reasons[str(root / name)]


@pytest.mark.parametrize(
  "content", ["", "<a>" * 9, '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>']
)
def test_data_set_of_broken_annotations_names_the_first(content, tmp_path):
  root = box_data.write_voc(tmp_path / "voc", {"a": voc_xml(), "b": content}, {})
  with pytest.raises(
    DatasetError, match=r"1 of 2 annotations cannot be used.* The first: .*/b\.xml: "
  ):
    _convert(root, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_strict_raises_for_broken_images(root, tmp_path):
  _broken_images(root)
  with pytest.raises(DatasetError, match="omit --strict"):
    _convert(root, tmp_path / "out", image_sets="train", strict=True)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"coordinate_origin": 2}, "0 or 1, received 2"),
    ({"image_sets": "nothing"}, "Existing lists: cat_train, test, train"),
    ({"image_sets": "train,trainval:train"}, "names a split twice"),
    ({"split": "mine"}, r"has train, val, test\. Pass --image_sets=LIST:mine\."),
    ({"validation_fraction": 0.2, "split": "validation"}, "--split other than validation"),
    ({"validation_fraction": 2.0}, "between 0 and 1"),
    ({"classes": "cat,cat"}, "occurs twice"),
  ],
)
def test_invalid_settings_raise(root, tmp_path, options, message):
  with pytest.raises(DatasetError, match=message):
    _convert(root, tmp_path / "out", **options)
  assert not (tmp_path / "out").exists()


def test_annotations_that_cannot_be_used_are_named_with_their_path(root, tmp_path):
  (root / "ImageSets/Main/train.txt").write_text("missing\n")
  with pytest.raises(DatasetError, match=r"The first: .*/Annotations/missing\.xml: file not found"):
    _convert(root, tmp_path / "out", image_sets="train")
  for file in (root / "Annotations").iterdir():
    file.write_text("<other/>")
  with pytest.raises(DatasetError, match=r"The first: .*/Annotations/b\.xml: not a Pascal VOC"):
    _convert(root, tmp_path / "out")


def test_error_for_other_classes_suggests_the_classes_flag(root, tmp_path):
  _convert(root, tmp_path / "out", image_sets="train")
  with pytest.raises(DatasetError, match=r"missing now: dog.*--classes=.*/out/labels\.txt"):
    _convert(root, tmp_path / "out", image_sets="val")
  _convert(root, tmp_path / "out", image_sets="val", classes=f"{tmp_path}/out/labels.txt")
  assert _boxes(tmp_path / "out", "validation") == [("b.jpg", 1, [1, 1, 8, 8])]


@pytest.mark.skipif(
  not BCCD.exists(), reason=f"needs the BCCD images, {BCCD.name}, beside the checkout"
)
def test_converts_bccd(tmp_path):
  with tarfile.open(BCCD) as archive:
    archive.extractall(tmp_path, filter="data")
  summary = _convert(tmp_path / "BCCD", tmp_path / "out")
  stats = {name: split.annotation_stats for name, split in summary.splits.items()}
  assert {name: split.examples for name, split in summary.splits.items()} == {
    "train": 205,
    "validation": 87,
    "test": 72,
  }
  assert stats["train"].by_class == {"Platelets": 209, "RBC": 2381, "WBC": 214}
  assert stats["validation"].by_class == {"Platelets": 83, "RBC": 967, "WBC": 87}
  assert stats["test"].by_class == {"Platelets": 69, "RBC": 805, "WBC": 71}
  assert [boxes.problems for boxes in stats.values()] == [{"empty": 1}, {"empty": 1}, {}]
  path = tmp_path / "out/test.json"
  assert evaluated(path, perfect_detections(path))[0] == pytest.approx(1.0)
