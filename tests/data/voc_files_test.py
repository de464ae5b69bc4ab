import pytest

from sasa_tf.data.detection.voc import find_voc_dataset, read_annotation, read_image_set
from sasa_tf.data.errors import DatasetError

from . import box_data


def _image_set(root, name):
  return read_image_set(find_voc_dataset(root), name)


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("")
  return root


def test_finds_the_standard_layout(tmp_path):
  _touch(
    tmp_path, "Annotations/a.xml", "Annotations/._a.xml", "JPEGImages/a.JPG", "JPEGImages/b.gif"
  )
  dataset = find_voc_dataset(tmp_path)
  assert dataset.image_dir == tmp_path / "JPEGImages"
  assert dataset.image_files == {"a": ["a.JPG"]}
  assert dataset.annotation_files == {"a": ["a.xml"]}
  assert dataset.junk == ["._a.xml"]


def test_finds_suffixes_in_any_case_and_ignores_junk(tmp_path):
  _touch(tmp_path, "Annotations/a.XML", "Annotations/b.Xml", "JPEGImages/a.Jpg")
  _touch(tmp_path, "JPEGImages/b.PNG", "JPEGImages/Thumbs.db", "JPEGImages/@eaDir/a.jpg")
  _touch(tmp_path, "ImageSets/Main/train.TXT", "ImageSets/Main/._train.txt")
  dataset = find_voc_dataset(tmp_path)
  assert dataset.annotation_files == {"a": ["a.XML"], "b": ["b.Xml"]}
  assert dataset.image_files == {"a": ["a.Jpg"], "b": ["b.PNG"]}
  assert dataset.image_sets.keys() == {"train"}
  assert dataset.junk == ["@eaDir", "Thumbs.db"]


def test_names_in_other_unicode_forms_are_the_same(tmp_path):
  _touch(tmp_path, "Annotations/caf\u00e9.xml", "JPEGImages/cafe\u0301.jpg")
  lists = _touch(tmp_path, "ImageSets/Main/train.txt") / "ImageSets/Main/train.txt"
  lists.write_text("cafe\u0301\n")
  dataset = find_voc_dataset(tmp_path)
  assert dataset.names == {"caf\u00e9"}
  assert read_image_set(dataset, "train") == (["caf\u00e9"], {})


def test_finds_images_and_xml_files_in_one_folder_or_two(tmp_path):
  _touch(tmp_path, "flat/a.b.xml", "flat/a.b.png", "flat/a.b.jpg", "images/c.jpeg", "xml/c.xml")
  assert find_voc_dataset(tmp_path / "flat").image_files == {"a.b": ["a.b.jpg", "a.b.png"]}
  assert find_voc_dataset(tmp_path / "flat").annotation_files == {"a.b": ["a.b.xml"]}
  dataset = find_voc_dataset(tmp_path / "images", tmp_path / "xml")
  assert dataset.image_files == {"c": ["c.jpeg"]}
  assert dataset.annotation_files == {"c": ["c.xml"]}


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["a.jpg"], "contains no XML file. Expected INPUT/Annotations"),
    (["Annotations/a.xml"], r"cannot read .*JPEGImages: No such file"),
    (
      ["train/a.xml", "test/a.XML", "x/a.jpg", "__MACOSX/a.xml"],
      r"folders separately: --input=.*/test, --input=.*/train\.",
    ),
    (["VOC2007/Annotations/a.xml"], r"--input=.*/VOC2007\."),
  ],
)
def test_other_layouts_raise(tmp_path, names, message):
  with pytest.raises(DatasetError, match=message):
    find_voc_dataset(_touch(tmp_path, *names))


def test_missing_directory_raises(tmp_path):
  with pytest.raises(DatasetError, match=r"nowhere: No such file"):
    find_voc_dataset(tmp_path / "nowhere")


def test_image_set_with_class_flags_blank_lines_and_duplicates(tmp_path):
  box_data.write_voc(tmp_path, dict.fromkeys(["a", "b", "photo 1"], box_data.voc_xml()))
  lists = _touch(tmp_path, "ImageSets/Main/train.txt") / "ImageSets/Main/train.txt"
  lists.write_text("a  1\nb -1\n\nphoto 1\r\na 1\nmissing\n")
  assert _image_set(tmp_path, "train") == (["a", "b", "photo 1", "missing"], {})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_image_set_with_suffixes_and_paths_of_any_system(tmp_path, encoding):
  names = ["a", "b.jpg", "c", "d", "e", "f 1"]
  box_data.write_voc(tmp_path, dict.fromkeys(names, box_data.voc_xml()))
  lists = _touch(tmp_path, "ImageSets/Main/train.txt") / "ImageSets/Main/train.txt"
  lines = [
    "a.JPG",
    "b.jpg ",
    "c.xml -1",
    r"D:\data\d.jpg",
    "../JPEGImages/e.jpeg  1",
    "f 1",
    "g.png",
  ]
  lists.write_bytes("\r\n".join(lines).encode(encoding))
  names, shortened = _image_set(tmp_path, "train")
  assert names == ["a", "b.jpg", "c", "d", "e", "f 1", "g"]
  assert shortened == {
    "a.JPG": "a",
    "c.xml -1": "c",
    r"D:\data\d.jpg": "d",
    "../JPEGImages/e.jpeg  1": "e",
    "g.png": "g",
  }


@pytest.mark.parametrize(
  ("content", "message"),
  [("中文\n".encode("gbk"), r"train\.txt: not UTF-8 text.*iconv"), (b"a\0\n", "binary data")],
)
def test_image_sets_in_other_encodings_raise(tmp_path, content, message):
  box_data.write_voc(tmp_path, {"a": box_data.voc_xml()}, {"train": ["a"]})
  (tmp_path / "ImageSets/Main/train.txt").write_bytes(content)
  with pytest.raises(DatasetError, match=message):
    _image_set(tmp_path, "train")


def test_missing_and_empty_image_sets_raise(tmp_path):
  box_data.write_voc(tmp_path, {"a": box_data.voc_xml()}, {"train": ["a"], "empty": []})
  with pytest.raises(DatasetError, match=r"Existing lists: empty, train\."):
    _image_set(tmp_path, "val")
  with pytest.raises(DatasetError, match="is empty"):
    _image_set(tmp_path, "empty")


def test_reads_size_and_objects(tmp_path):
  (tmp_path / "a.xml").write_text(
    box_data.voc_xml(
      box_data.voc_object(" cat ", ("1.5", "2", "3e1", "nan"), difficult=1),
      "<object><name>dog</name></object>",
      box_data.voc_object("", ("a", 2, 3, 4)),
    )
  )
  annotation = read_annotation(tmp_path / "a.xml")
  assert annotation.size == (24, 40)
  cat, dog, unnamed = annotation.objects
  assert cat.class_name == "cat" and cat.difficult
  assert cat.corners[:3] == (1.5, 2, 30) and cat.corners[3] != cat.corners[3]
  assert dog == ("dog", None, False)
  assert unnamed == (None, None, False)


@pytest.mark.parametrize(
  "xml", ["<annotation/>", box_data.voc_xml(height=0), box_data.voc_xml(height=" ")]
)
def test_missing_size_is_none(tmp_path, xml):
  (tmp_path / "a.xml").write_text(xml)
  assert read_annotation(tmp_path / "a.xml") == (None, [], None)


@pytest.mark.parametrize(
  "height", ["x", "inf", "nan", "-24", "24.5", "1e400", "9" * 400, "2147483648"]
)
def test_invalid_size_is_stated(tmp_path, height):
  (tmp_path / "a.xml").write_text(box_data.voc_xml(height=height))
  size, _, invalid_size = read_annotation(tmp_path / "a.xml")
  assert size is None
  assert invalid_size.startswith(f"40 x {height[:5]}") and len(invalid_size) < 100


@pytest.mark.parametrize(
  ("text", "flag"),
  [("1", True), (" 0 ", False), ("", False), ("True", True), ("2", None), ("nan", None)],
)
def test_difficult_flag(tmp_path, text, flag):
  (tmp_path / "a.xml").write_text(box_data.voc_xml(box_data.voc_object(difficult=text)))
  assert read_annotation(tmp_path / "a.xml").objects[0].difficult is flag


def test_white_space_in_class_names(tmp_path):
  (tmp_path / "a.xml").write_text(box_data.voc_xml(box_data.voc_object("\n  traffic\n  light\n")))
  assert read_annotation(tmp_path / "a.xml").objects[0].class_name == "traffic light"


@pytest.mark.parametrize(("text", "message"), [("", "invalid XML"), ("<html/>", "received <html>")])
def test_invalid_annotations_raise(tmp_path, text, message):
  (tmp_path / "a.xml").write_text(text)
  with pytest.raises(ValueError, match=message):
    read_annotation(tmp_path / "a.xml")
