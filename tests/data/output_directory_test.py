import contextlib
import itertools
import json
import os
import pathlib
import shutil

import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.output_directory import OutputDirectory, locked_output_directory
from tests.broken_files import BROKEN


def _write(
  path, split="train", classes=("a", "b"), shards=2, overwrite=False, skipped=(), files=()
):
  with locked_output_directory(path, [split], classes, overwrite, {split: files}) as output:
    for index in range(shards):
      output.staged_shard(split, index).write_text(f"{split} {index} of {shards}")
    for name in files:
      output.staged_file(split, name).write_text(f"{name} of {shards}")
    record = {"shards": shards, **({"files": list(files)} if files else {})}
    output.commit({split: record}, classes, {split: skipped})


def _names(path):
  return sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))


def test_commit_leaves_only_the_final_files(tmp_path):
  _write(tmp_path, skipped=["x: broken"])
  assert _names(tmp_path) == [
    "dataset.json",
    "labels.txt",
    "skipped-train.txt",
    "train-00000-of-00002.tfrecord",
    "train-00001-of-00002.tfrecord",
  ]
  assert (tmp_path / "train-00001-of-00002.tfrecord").read_text() == "train 1 of 2"
  assert (tmp_path / "labels.txt").read_text() == "a\nb\n"
  assert (tmp_path / "skipped-train.txt").read_text() == "x: broken\n"
  assert json.loads((tmp_path / "dataset.json").read_text()) == {"train": {"shards": 2}}


def test_no_final_names_before_the_commit(tmp_path):
  with locked_output_directory(tmp_path, ["train"], ["a"], False) as output:
    output.staged_shard("train", 0).write_text("")
    assert not list(tmp_path.rglob("train-*"))
    assert not list(tmp_path.rglob("*.tfrecord"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, DatasetError, OSError])
def test_directory_is_restored_without_a_commit(tmp_path, error):
  with (
    pytest.raises(error),
    locked_output_directory(tmp_path / "a/b", ["train"], ["a"], False) as output,
  ):
    output.staged_shard("train", 0).write_text("")
    raise error
  assert _names(tmp_path) == []


def test_failing_commit_leaves_nothing(tmp_path):
  with (
    pytest.raises(FileNotFoundError),
    locked_output_directory(tmp_path / "out", ["train"], ["a"], False) as output,
  ):
    output.staged_shard("train", 0).write_text("")
    output.commit({"train": {"shards": 2}}, ["a"], {"train": []})
  assert _names(tmp_path) == []


def test_second_split_is_added(tmp_path):
  _write(tmp_path)
  _write(tmp_path, "validation", shards=1)
  assert OutputDirectory(tmp_path).records() == {
    "train": {"shards": 2},
    "validation": {"shards": 1},
  }
  assert len(OutputDirectory(tmp_path).shards("train")) == 2


def test_existing_split_raises(tmp_path):
  _write(tmp_path)
  with pytest.raises(DatasetError, match=r"'train' already exists.*--overwrite"):
    _write(tmp_path, shards=1)
  assert (tmp_path / "train-00001-of-00002.tfrecord").read_text() == "train 1 of 2"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("train-00000-of-00001.tfrecord", "not written by this program"),
    ("skipped-train.txt", "not written by this program"),
    ("train.json", "not written by this program .* Move it"),
    ("labels.txt", "class names differ"),
  ],
)
def test_foreign_files_are_never_replaced(tmp_path, name, message, overwrite):
  (tmp_path / name).write_text("foreign\n")
  with pytest.raises(DatasetError, match=message):
    _write(tmp_path, overwrite=overwrite, files=["train.json"])
  assert _names(tmp_path) == [name]
  assert (tmp_path / name).read_text() == "foreign\n"


def test_overwrite_replaces_all_files_of_the_split(tmp_path):
  _write(tmp_path, shards=3, skipped=["x: broken"])
  _write(tmp_path, classes=("c",), shards=2, overwrite=True)
  assert _names(tmp_path) == [
    "dataset.json",
    "labels.txt",
    "train-00000-of-00002.tfrecord",
    "train-00001-of-00002.tfrecord",
  ]
  assert (tmp_path / "labels.txt").read_text() == "c\n"


def test_further_files_are_replaced_with_their_split(tmp_path):
  _write(tmp_path, files=["train.json", "problems.txt"])
  assert (tmp_path / "problems.txt").read_text() == "problems.txt of 2"
  _write(tmp_path, shards=1, overwrite=True, files=["train.json"])
  assert (tmp_path / "train.json").read_text() == "train.json of 1"
  assert not (tmp_path / "problems.txt").exists()
  _write(tmp_path, overwrite=True)
  assert not (tmp_path / "train.json").exists()


def test_failing_overwrite_preserves_the_old_split(tmp_path):
  _write(tmp_path)
  before = _names(tmp_path)
  with pytest.raises(KeyboardInterrupt), locked_output_directory(tmp_path, ["train"], ["c"], True):
    raise KeyboardInterrupt
  assert _names(tmp_path) == before
  assert (tmp_path / "labels.txt").read_text() == "a\nb\n"


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    (("a", "c"), "missing now: b; new: c"),
    (("a",), "missing now: b"),
    (("a", "b", "d"), "new: d"),
    (("b", "a"), "another order"),
    ([str(i) for i in range(30)], "new: 0, 1, .* and 20 more"),
  ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_splits_must_have_the_same_classes(tmp_path, classes, message, overwrite):
  _write(tmp_path)
  with pytest.raises(DatasetError, match=message):
    _write(tmp_path, "validation", classes=classes, overwrite=overwrite)
  assert OutputDirectory(tmp_path).records() == {"train": {"shards": 2}}


class _KilledError(BaseException):
  """Simulates a kill before the n-th change of the file system."""


def _kill_before(patches, change):
  count = iter(range(change + 1))
  changes = [(os, "replace"), (shutil, "rmtree")]
  changes += [(pathlib.Path, name) for name in ("touch", "unlink", "rename", "write_bytes")]

  def counted(real):
    def change_or_raise(*arguments, **options):
      if next(count, None) in (change, None):
        raise _KilledError
      return real(*arguments, **options)

    return change_or_raise

  for owner, name in changes:
    patches.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("overwrite", [False, True])
def test_kill_during_the_commit_leaves_the_old_or_the_new_split(tmp_path, monkeypatch, overwrite):
  outcomes = []
  for change in itertools.count():
    path = tmp_path / str(change)
    path.mkdir()
    if overwrite:
      _write(path, shards=3, files=["train.json", "old.txt"], skipped=["old"])
    old = {name: (path / name).read_text() for name in _names(path)}
    output = OutputDirectory(path)
    output.stage("train")
    for index in range(2):
      output.staged_shard("train", index).write_text("new")
    output.staged_file("train", "train.json").write_text("new")
    killed = False
    with monkeypatch.context() as patches:
      _kill_before(patches, change)
      try:
        record = {"shards": 2, "files": ["train.json"]}
        output.commit({"train": record}, ["a", "b"], {"train": []})
      except _KilledError:
        killed = True
    with contextlib.suppress(OSError), locked_output_directory(path, ["test"], ["a", "b"], False):
      raise OSError  # the next run recovers, and writes nothing
    names = [name for name in _names(path) if not name.startswith(".")]
    outcomes.append("new" if OutputDirectory(path).records().get("train") == record else "old")
    if outcomes[-1] == "old":
      assert {name: (path / name).read_text() for name in names} == old
    else:
      shards = [f"train-0000{index}-of-00002.tfrecord" for index in range(2)]
      assert names == ["dataset.json", "labels.txt", *shards, "train.json"]
      assert {(path / name).read_text() for name in names[2:]} == {"new"}
      assert (path / "labels.txt").read_text() == "a\nb\n"
    _write(path, shards=1, overwrite="train" in OutputDirectory(path).records())
    assert not [name for name in _names(path) if name.startswith(".")]
    if not killed:
      break
  assert outcomes == sorted(outcomes, reverse=True) and outcomes.count("new") > 8
  assert outcomes[0] == "old"


def test_commit_that_cannot_be_completed_raises(tmp_path):
  _write(tmp_path)
  for content in (
    '{"records": {"train": {"shards": 4}}, "class_names": [], "skipped": {"train": []}, '
    '"obsolete": []}',
    '{"records": {}, "class_names": [], "skipped": {}, "obsolete": ["../file"]}',
    '{"records": [1]}',
    "{}",
  ):
    (tmp_path / ".committing.json").write_text(content)
    with pytest.raises(
      DatasetError, match=r"\.committing\.json is of a conversion that was killed"
    ):
      _write(tmp_path, "validation")
  assert len(OutputDirectory(tmp_path).shards("train")) == 2


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", "", 3])
def test_names_outside_of_the_directory_raise(tmp_path, name):
  path = tmp_path / "data"
  (tmp_path / "outside").write_text("precious")
  _write(path)
  (path / "dataset.json").write_text(json.dumps({"train": {"shards": 2, "files": [name]}}))
  with pytest.raises(
    DatasetError, match=r"dataset\.json: expected the statistics of split 'train'"
  ):
    _write(path, overwrite=True)
  assert (tmp_path / "outside").read_text() == "precious"


def test_links_at_temporary_names_lead_nowhere(tmp_path):
  path, outside = tmp_path / "data", tmp_path / "outside"
  path.mkdir()
  outside.mkdir()
  (outside / "file").write_text("precious")
  (path / ".train.incomplete").symlink_to(outside)
  for name in ("labels.txt", "dataset.json", "skipped-train.txt"):
    (path / f".{name}.incomplete").symlink_to(outside / "file")
  _write(path, skipped=["x: broken"])
  assert _names(outside) == ["file"] and (outside / "file").read_text() == "precious"
  assert not [name for name in _names(path) if name.startswith(".")]


def test_concurrent_conversions_raise(tmp_path):
  with locked_output_directory(tmp_path, ["train"], ["a"], False):
    with (
      pytest.raises(DatasetError, match="another conversion"),
      locked_output_directory(tmp_path, ["validation"], ["a"], False),
    ):
      pass
    assert (tmp_path / ".train.incomplete").is_dir()
  _write(tmp_path)


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_output_that_is_a_file_raises(tmp_path, output):
  (tmp_path / "file").write_text("")
  with pytest.raises(DatasetError, match=f"cannot create the output directory .*{output}"):
    _write(tmp_path / output)
  assert (tmp_path / "file").read_text() == ""


def test_remote_output_raises():
  with pytest.raises(DatasetError, match="must be a local directory, received gs:/"):
    _write("gs://bucket/data")


@pytest.mark.parametrize("content", [*BROKEN.values(), b"{", b'{"train": 1}', b'{"a/b": {}}'])
def test_invalid_record_file_raises(tmp_path, content):
  (tmp_path / "dataset.json").write_bytes(content)
  with pytest.raises(DatasetError, match=r"dataset\.json"):
    _write(tmp_path)
  assert _names(tmp_path) == ["dataset.json"]
