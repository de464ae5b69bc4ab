import pytest

from sasa_tf.data.detection.voc import find_voc_dataset, read_annotation, read_image_set
from sasa_tf.data.errors import DatasetError

from . import box_data


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
  assert dataset.annotation_names == {"a"}


def test_finds_images_and_xml_files_in_one_folder_or_two(tmp_path):
  _touch(tmp_path, "flat/a.b.xml", "flat/a.b.png", "flat/a.b.jpg", "images/c.jpeg", "xml/c.xml")
  assert find_voc_dataset(tmp_path / "flat").image_files == {"a.b": ["a.b.jpg", "a.b.png"]}
  assert find_voc_dataset(tmp_path / "flat").annotation_names == {"a.b"}
  dataset = find_voc_dataset(tmp_path / "images", tmp_path / "xml")
  assert (dataset.image_files, dataset.annotation_names) == ({"c": ["c.jpeg"]}, {"c"})


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["a.jpg"], "contains no XML file. Expected INPUT/Annotations"),
    (["Annotations/a.xml"], r"cannot read .*JPEGImages: No such file"),
    (
      ["train/a.xml", "test/a.xml", "x/a.jpg"],
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
  assert read_image_set(find_voc_dataset(tmp_path), "train") == ["a", "b", "photo 1", "missing"]


def test_missing_and_empty_image_sets_raise(tmp_path):
  box_data.write_voc(tmp_path, {"a": box_data.voc_xml()}, {"train": ["a"], "empty": []})
  with pytest.raises(DatasetError, match=r"Existing lists: empty, train\."):
    read_image_set(find_voc_dataset(tmp_path), "val")
  with pytest.raises(DatasetError, match="is empty"):
    read_image_set(find_voc_dataset(tmp_path), "empty")


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
  "xml", ["<annotation/>", box_data.voc_xml(height=0), box_data.voc_xml(height="x")]
)
def test_missing_size_is_none(tmp_path, xml):
  (tmp_path / "a.xml").write_text(xml)
  assert read_annotation(tmp_path / "a.xml").size is None


@pytest.mark.parametrize(("text", "message"), [("", "invalid XML"), ("<html/>", "received <html>")])
def test_invalid_annotations_raise(tmp_path, text, message):
  (tmp_path / "a.xml").write_text(text)
  with pytest.raises(ValueError, match=message):
    read_annotation(tmp_path / "a.xml")
