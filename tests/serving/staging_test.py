"""What is written appears whole or not at all."""

import pytest

from sasa_tf.errors import UserError
from sasa_tf.serving.staging import refuse_existing, staged


@pytest.mark.parametrize("before", ["nothing", "file", "directory"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_target_is_replaced_at_the_end(tmp_path, before, fails):
  target = tmp_path / "folder" / "a"
  if before == "directory":
    target.mkdir(parents=True)
    (target / "old").write_text("old")
  elif before == "file":
    target.parent.mkdir()
    target.write_text("old")
  try:
    with staged(target) as path:
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


def test_what_a_kill_left_is_removed(tmp_path):
  (tmp_path / ".a.incomplete").mkdir()
  (tmp_path / ".a.incomplete" / "half").write_text("")
  with staged(tmp_path / "a") as path:
    path.write_text("new")
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_existing_targets_are_refused(tmp_path):
  refuse_existing(str(tmp_path / "a"), "litert", overwrite=False)
  refuse_existing(str(tmp_path), "litert", overwrite=True)
  with pytest.raises(UserError, match=r"--litert=.* exists"):
    refuse_existing(str(tmp_path), "litert", overwrite=False)
