import pytest

from sasa_tf.data.inputs.junk_files import is_junk, junk_warning


@pytest.mark.parametrize(
  "name",
  [
    "__MACOSX",
    "@eaDir",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
    "Thumbs.db",
    "desktop.ini",
    "#recycle",
    "__pycache__",
    ".ipynb_checkpoints",
    ".Trashes",
    ".DS_Store",
    "._1.jpg",
  ],
)
def test_names_that_systems_leave_behind(name):
  assert is_junk(name) and is_junk(name.upper())


@pytest.mark.parametrize("name", ["cat", "recycle", "macosx", "found", "1.jpg", "@home", "thumbs"])
def test_other_names(name):
  assert not is_junk(name)


def test_warning_counts_names():
  names = ["._1.jpg", "._2.jpg", "@eaDir", "@eaDir", "__MACOSX", "a\nb"]
  assert junk_warning(names) == (
    "ignored hidden and system files and folders: ._* 2, @eaDir 2, __MACOSX, a\\nb."
  )
  assert junk_warning(f".{i:02d}" for i in range(12)).endswith(", .09 and 2 other names.")
