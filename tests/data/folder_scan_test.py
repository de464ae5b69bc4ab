import os

import pytest

from sasa_tf.data.classification.folder_scan import ImageFile, scan_image_folder
from sasa_tf.data.errors import DatasetError


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("12345")
  return root


def test_lists_images_by_class_in_sorted_order(tmp_path):
  _touch(tmp_path, "dog/2.JPEG", "dog/1.png", "cat/deep/er/x.Jpg", "Zebra/z.jpeg")
  folder = scan_image_folder(tmp_path)
  assert folder.class_names == ("Zebra", "cat", "dog")
  assert folder.files == [
    ImageFile("Zebra/z.jpeg", 0, 5),
    ImageFile("cat/deep/er/x.Jpg", 1, 5),
    ImageFile("dog/1.png", 2, 5),
    ImageFile("dog/2.JPEG", 2, 5),
  ]
  assert folder.warnings == []


def test_warnings_for_empty_classes_and_ignored_files(tmp_path):
  _touch(tmp_path, "cat/1.jpg", "cat/notes.txt", "README", "loose.jpg", "dog/x.gif")
  folder = scan_image_folder(tmp_path)
  assert folder.class_names == ("cat", "dog")
  assert [file.name for file in folder.files] == ["cat/1.jpg"]
  empty, loose, other = folder.warnings
  assert "no images in class folder 'dog'" in empty
  assert loose.endswith("have no class: 1.")
  assert other.endswith(": 3.")


def test_hidden_and_system_files_are_ignored_and_reported(tmp_path):
  _touch(tmp_path, "cat/1.jpg", "cat/._1.jpg", ".git/1.jpg", "cat/.cache/2.jpg", ".DS_Store")
  _touch(tmp_path, "__MACOSX/cat/1.jpg", "@eaDir/1.jpg", "cat/@eaDir/1.jpg/S.jpg", "cat/Thumbs.db")
  _touch(tmp_path, "lost+found/x", "$RECYCLE.BIN/1.jpg", ".ipynb_checkpoints/1.jpg")
  folder = scan_image_folder(tmp_path)
  assert folder.class_names == ("cat",)
  assert [file.name for file in folder.files] == ["cat/1.jpg"]
  assert folder.warnings == [
    "ignored hidden and system files and folders: $RECYCLE.BIN, .DS_Store, ._*, .cache, .git, "
    ".ipynb_checkpoints, @eaDir 2, Thumbs.db, __MACOSX, lost+found."
  ]


def test_class_names_have_no_surrounding_white_space(tmp_path):
  folder = scan_image_folder(_touch(tmp_path, "cat /1.jpg", "dog/1.jpg"))
  assert folder.class_names == ("cat", "dog")
  assert [file.name for file in folder.files] == ["cat /1.jpg", "dog/1.jpg"]


def test_follows_links_but_not_cycles(tmp_path):
  _touch(tmp_path, "elsewhere/deep/1.jpg", "root/dog/1.jpg")
  (tmp_path / "root/cat").symlink_to(tmp_path / "elsewhere")
  (tmp_path / "root/dog/up").symlink_to(tmp_path / "root")
  (tmp_path / "elsewhere/deep/up").symlink_to(tmp_path / "elsewhere")
  names = [file.name for file in scan_image_folder(tmp_path / "root").files]
  assert names == ["cat/deep/1.jpg", "dog/1.jpg"]


def test_broken_links_are_images_and_pipes_are_not(tmp_path):
  _touch(tmp_path, "cat/1.jpg")
  (tmp_path / "cat/2.jpg").symlink_to("nowhere")
  os.mkfifo(tmp_path / "cat/3.jpg")
  (tmp_path / "cat/4.jpg").mkdir()
  folder = scan_image_folder(tmp_path)
  assert [(file.name, file.num_bytes) for file in folder.files] == [
    ("cat/1.jpg", 5),
    ("cat/2.jpg", 0),
  ]
  assert folder.warnings == ["ignored pipes, sockets and devices: 1."]


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["1.jpg", "2.png", "notes.txt"], "2 images but no folders. Expected one folder per class"),
    (["notes.txt"], "contains no folders"),
    (["cat/notes.txt", "dog/x.gif"], "2 folders .* contain no images"),
    (["train/cat/1.jpg", "Val/cat/2.jpg"], "are splits, not classes"),
    (["train/a/1.jpg", "test/a/2.jpg", "__MACOSX/1.jpg", "@eaDir/1.jpg"], "are splits"),
    (["__MACOSX/1.jpg", "lost+found/1.jpg"], "contains no folders"),
    (["a/train/cat/1.jpg", "a/test/cat/2.jpg", "b/val/dog/1.jpg"], "data sets .*input=.*/a/test"),
  ],
)
def test_other_layouts_raise(tmp_path, names, message):
  with pytest.raises(DatasetError, match=message):
    scan_image_folder(_touch(tmp_path, *names))


def test_folder_around_the_classes_is_reported(tmp_path):
  _touch(tmp_path, "my data/cat/1.jpg", "my data/dog/1.jpg", "__MACOSX/my data/cat/1.jpg")
  folder = scan_image_folder(tmp_path)
  assert folder.class_names == ("my data",)
  assert folder.warnings[1].endswith(f"are the classes, pass --input='{tmp_path}/my data'.")
  assert len(scan_image_folder(tmp_path / "my data").class_names) == 2


def test_parent_of_data_sets_is_reported(tmp_path):
  _touch(tmp_path, "animals/cat/1.jpg", "animals/dog/2.jpg", "digits/0/3.png", "digits/1/4.png")
  folder = scan_image_folder(tmp_path)
  assert "in folders of the class folders" in folder.warnings[0]
  assert folder.warnings[0].endswith(f"pass --input={tmp_path}/animals.")


def test_parts_of_classes_can_be_named_train(tmp_path):
  folder = scan_image_folder(_touch(tmp_path, "cat/train/1.jpg", "cat/test/2.jpg", "dog/3.jpg"))
  assert folder.class_names == ("cat", "dog") and not folder.warnings


def test_class_can_be_named_train(tmp_path):
  assert scan_image_folder(_touch(tmp_path, "train/1.jpg")).class_names == ("train",)


def test_missing_directory_raises(tmp_path):
  _touch(tmp_path, "file")
  with pytest.raises(DatasetError, match=r"nowhere: No such file.*Expected one folder per class"):
    scan_image_folder(tmp_path / "nowhere")
  with pytest.raises(DatasetError, match="file: Not a directory"):
    scan_image_folder(tmp_path / "file")
