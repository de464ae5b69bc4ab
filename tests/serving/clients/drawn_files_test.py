"""Drawn images never replace other files."""

import pytest
from PIL import Image

from sasa_tf.errors import UserError
from sasa_tf.serving.clients.drawn_files import check_drawn_files, save_drawn


def test_drawn_images_are_replaced(tmp_path):
  images = ["a/cat.jpg", "b/cat.png", "dog.png"]
  files = check_drawn_files(images, str(tmp_path / "drawn"))
  assert [file.name for file in files] == ["cat.png", "cat_2.png", "dog.png"]
  for color in ("red", "blue"):
    assert check_drawn_files(images, str(tmp_path / "drawn")) == files
    for file in files:
      save_drawn(file, Image.new("RGB", (2, 2), color))
  assert Image.open(files[0]).getpixel((0, 0)) == (0, 0, 255)
  assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [f.name for f in files]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n broken", b"notes", None])
def test_other_files_are_not_replaced(tmp_path, content):
  """Among them the image itself, and a link."""
  file = tmp_path / "cat.png"
  if content is None:
    Image.new("RGB", (2, 2)).save(file)
  else:
    file.write_bytes(content)
  before = file.read_bytes()
  with pytest.raises(UserError, match=r"cat\.png exists and was not drawn by this program"):
    check_drawn_files([str(file)], str(tmp_path))
  assert file.read_bytes() == before
  (tmp_path / "dog.png").symlink_to(tmp_path / "missing")
  with pytest.raises(UserError, match=r"dog\.png exists"):
    check_drawn_files(["dog.jpg"], str(tmp_path))


def test_unusable_directory(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="is a file; expected a directory"):
    check_drawn_files(["a.png"], str(tmp_path / "file"))
  with pytest.raises(UserError, match="expected a local path"):
    check_drawn_files(["a.png"], "gs://bucket/drawn")
