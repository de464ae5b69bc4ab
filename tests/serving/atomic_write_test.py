"""Atomic writes of files and directories."""

import pytest

from sasa_tf.errors import UserError
from sasa_tf.serving.atomic_write import atomic_write, check_overwrite


@pytest.mark.parametrize("before", ["nothing", "file", "directory"])
@pytest.mark.parametrize("fails", [False, True])
def test_target_is_replaced_on_success_only(tmp_path, before, fails):
  target = tmp_path / "folder" / "a"
  if before == "directory":
    target.mkdir(parents=True)
    (target / "old").write_text("old")
  elif before == "file":
    target.parent.mkdir()
    target.write_text("old")
  try:
    with atomic_write(target) as path:
      path.write_text("new")
      assert target.exists() == (before != "nothing")
      if fails:
        raise KeyError
  except KeyError:
    assert fails
  assert [p.name for p in target.parent.iterdir()] == (["a"] if target.exists() else [])
  if not fails:
    assert target.read_text() == "new"
  elif before == "directory":
    assert (target / "old").read_text() == "old"
  elif before == "file":
    assert target.read_text() == "old"
  else:
    assert not target.exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
  (tmp_path / ".a.incomplete").mkdir()
  (tmp_path / ".a.incomplete" / "half").write_text("")
  with atomic_write(tmp_path / "a") as path:
    path.write_text("new")
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_existing_output_raises_without_overwrite(tmp_path):
  check_overwrite(str(tmp_path / "a"), "litert", overwrite=False)
  check_overwrite(str(tmp_path), "litert", overwrite=True)
  with pytest.raises(UserError, match=r"--litert=.* exists"):
    check_overwrite(str(tmp_path), "litert", overwrite=False)
