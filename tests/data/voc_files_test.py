import pytest

from sasa_tf.data.detection.voc_files import find_voc, read_annotation, read_list
from sasa_tf.data.errors import DatasetError

from . import box_data


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("")
  return root


def test_finds_the_layout_of_the_challenge(tmp_path):
  _touch(
    tmp_path, "Annotations/a.xml", "Annotations/._a.xml", "JPEGImages/a.JPG", "JPEGImages/b.gif"
  )
  folder = find_voc(tmp_path)
  assert folder.pictures == tmp_path / "JPEGImages"
  assert folder.picture_names == {"a": ["a.JPG"]}
  assert folder.annotation_names == {"a"}


def test_finds_pictures_and_xml_files_in_one_folder_or_in_two(tmp_path):
  _touch(tmp_path, "flat/a.b.xml", "flat/a.b.png", "flat/a.b.jpg", "images/c.jpeg", "xml/c.xml")
  assert find_voc(tmp_path / "flat").picture_names == {"a.b": ["a.b.jpg", "a.b.png"]}
  assert find_voc(tmp_path / "flat").annotation_names == {"a.b"}
  folder = find_voc(tmp_path / "images", tmp_path / "xml")
  assert (folder.picture_names, folder.annotation_names) == ({"c": ["c.jpeg"]}, {"c"})


@pytest.mark.parametrize(
  ("names", "words"),
  [
    (["a.jpg"], "holds no XML file. Expected INPUT/Annotations"),
    (["Annotations/a.xml"], r"cannot read .*JPEGImages: No such file"),
    (
      ["train/a.xml", "test/a.xml", "x/a.jpg"],
      r"one at a time: --input=.*/test, --input=.*/train\.",
    ),
    (["VOC2007/Annotations/a.xml"], r"--input=.*/VOC2007\."),
  ],
)
def test_refuses_other_layouts(tmp_path, names, words):
  with pytest.raises(DatasetError, match=words):
    find_voc(_touch(tmp_path, *names))


def test_refuses_what_is_no_directory(tmp_path):
  with pytest.raises(DatasetError, match=r"nowhere: No such file"):
    find_voc(tmp_path / "nowhere")


def test_a_list_may_hold_flags_blanks_and_repetitions(tmp_path):
  box_data.write_voc(tmp_path, dict.fromkeys(["a", "b", "photo 1"], box_data.voc_xml()))
  lists = _touch(tmp_path, "ImageSets/Main/train.txt") / "ImageSets/Main/train.txt"
  lists.write_text("a  1\nb -1\n\nphoto 1\r\na 1\nmissing\n")
  assert read_list(find_voc(tmp_path), "train") == ["a", "b", "photo 1", "missing"]


def test_refuses_lists_that_are_missing_or_empty(tmp_path):
  box_data.write_voc(tmp_path, {"a": box_data.voc_xml()}, {"train": ["a"], "empty": []})
  with pytest.raises(DatasetError, match=r"Lists there: empty, train\."):
    read_list(find_voc(tmp_path), "val")
  with pytest.raises(DatasetError, match="is empty"):
    read_list(find_voc(tmp_path), "empty")


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
  cat, dog, nothing = annotation.objects
  assert cat.class_name == "cat" and cat.difficult
  assert cat.corners[:3] == (1.5, 2, 30) and cat.corners[3] != cat.corners[3]
  assert dog == ("dog", None, False)
  assert nothing == (None, None, False)


@pytest.mark.parametrize(
  "xml", ["<annotation/>", box_data.voc_xml(height=0), box_data.voc_xml(height="x")]
)
def test_an_absent_size_is_no_size(tmp_path, xml):
  (tmp_path / "a.xml").write_text(xml)
  assert read_annotation(tmp_path / "a.xml").size is None


@pytest.mark.parametrize(("text", "words"), [("", "damaged XML"), ("<html/>", "<html> where")])
def test_refuses_what_is_no_annotation(tmp_path, text, words):
  (tmp_path / "a.xml").write_text(text)
  with pytest.raises(ValueError, match=words):
    read_annotation(tmp_path / "a.xml")
