import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf.data.detection.box_stats import BoxFigures
from sasa_tf.data.detection.boxes import Box, CheckedImage, Problem
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.examples import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import SplitPlan, SplitSummary, plan_split, write_dataset

ROOT = pathlib.Path(__file__).parents[2]


def _encode(item, fatal=None):
  if item == fatal:
    raise KeyboardInterrupt
  if item < 0:
    raise BrokenImageError(f"item {item} is broken")
  return EncodedExample(str(item).encode(), "jpeg")


def _write(output, items=range(20), num_shards=3, fatal=None, **options):
  encode = functools.partial(_encode, fatal=fatal)
  plans = {"train": SplitPlan(list(items), num_shards)}
  return write_dataset(output, plans, ["a", "b"], encode, **{"num_processes": 1, **options})


def _content(output):
  return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def _records(output, split="train"):
  files = sorted(map(str, output.glob(f"{split}-*.tfrecord")))
  return [int(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]


@pytest.mark.parametrize(
  ("num_items", "num_bytes", "num_shards"),
  [
    (10, 10**5, 1),
    (1000, 10**6, 8),
    (300, 10**10, 4),
    (50_000, 50 * 2**20, 8),
    (1_281_167, 138 * 2**30, 1024),
    (200_000, 10 * 2**30, 80),
  ],
)
def test_shards_are_neither_huge_nor_few_nor_tiny(num_items, num_bytes, num_shards):
  assert plan_split("train", range(num_items), num_bytes).num_shards == num_shards


@pytest.mark.parametrize(
  ("name", "items", "num_shards", "words"),
  [
    ("train", [], 0, "'train' would be empty"),
    ("train", [1, 2], 3, "between 1 and the 2 images"),
    ("train", [1, 2], -1, "received -1"),
    ("train-a", [1], 0, "'train-a'"),
    ("../train", [1], 0, "letters, digits and _"),
    ("", [1], 0, "letters, digits and _"),
  ],
)
def test_refuses_plans_that_cannot_be(name, items, num_shards, words):
  with pytest.raises(DatasetError, match=words):
    plan_split(name, items, 100, num_shards)


def test_every_item_is_written_once_in_order(tmp_path):
  summary = _write(tmp_path, range(20), num_shards=3)
  assert _records(tmp_path) == list(range(20))
  assert summary.splits == {"train": SplitSummary(20, 3, 2, 0, {"jpeg": 20})}
  assert 0 <= summary.starting_seconds <= summary.seconds


def test_shards_are_of_equal_size(tmp_path):
  _write(tmp_path, range(20), num_shards=3)
  sizes = [
    sum(1 for _ in tf.data.TFRecordDataset(str(path)))
    for path in sorted(tmp_path.glob("*.tfrecord"))
  ]
  assert sizes == [6, 7, 7]


def test_broken_items_are_skipped_counted_and_listed(tmp_path, capsys):
  summary = _write(tmp_path, [1, -1, 2, -2, 3])
  assert _records(tmp_path) == [1, 2, 3]
  assert summary.splits["train"].skipped == 2
  assert (tmp_path / "skipped-train.txt").read_text() == "item -1 is broken\nitem -2 is broken\n"
  assert "Skipped item -1 is broken" in capsys.readouterr().err


def test_the_screen_shows_the_first_complaints_only(tmp_path, capsys):
  _write(tmp_path, [1, *range(-30, 0)])
  assert capsys.readouterr().err.count("Skipped") == 10
  assert (tmp_path / "skipped-train.txt").read_text().count("\n") == 30


def test_strict_leaves_nothing(tmp_path):
  with pytest.raises(DatasetError, match=r"item -1 is broken\n.*no --strict"):
    _write(tmp_path / "out", [1, 2, -1, 3], strict=True)
  assert not (tmp_path / "out").exists()


def test_a_split_of_broken_images_only_is_refused(tmp_path):
  with pytest.raises(DatasetError, match=r"every one of the 3 images .*\nitem -3"):
    _write(tmp_path / "out", [-3, -2, -1])
  assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_nothing(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _write(tmp_path / "out", fatal=15)
  assert not (tmp_path / "out").exists()


def test_refuses_a_negative_number_of_processes(tmp_path):
  with pytest.raises(DatasetError, match="received -1"):
    _write(tmp_path / "out", num_processes=-1)


def test_class_names_are_checked_before_the_work(tmp_path):
  with pytest.raises(DatasetError, match="occurs twice"):
    write_dataset(tmp_path / "out", {"train": SplitPlan([1], 1)}, ["a", "a"], None)


def _encode_boxes(item):
  if item < 0:
    raise BrokenImageError(f"item {item} is broken")
  image = CheckedImage(item, f"{item}.jpg", 9, 9, (Box(0.0, 1.0, 2.0, 3.0, 1, 4.0),) * (item % 3))
  return EncodedExample(b"x", "jpeg", [Problem("empty", f"{item}: empty")] * (item == 4), image)


def test_splits_with_boxes_get_an_annotation_file_and_figures(tmp_path):
  known = Problem("lost", "7: lost")
  summary = write_dataset(
    tmp_path,
    {"train": SplitPlan([5, -1, 2, 3], 2), "test": SplitPlan([4], 1, [known])},
    ["background", "a"],
    _encode_boxes,
    categories=[{"id": 1, "name": "a"}],
    num_processes=1,
  )
  train, test = summary.splits["train"], summary.splits["test"]
  assert train.boxes == BoxFigures({"a": 4}, 0, 1, 2, {})
  assert test.boxes == BoxFigures({"a": 1}, 0, 0, 1, {"empty": 1, "lost": 1})
  assert (train.files, test.files) == (["train.json"], ["test.json", "problems-test.txt"])
  content = json.loads((tmp_path / "train.json").read_text())
  assert [image["id"] for image in content["images"]] == [2, 3, 5]
  assert (tmp_path / "problems-test.txt").read_text() == "7: lost\n4: empty\n"
  record = json.loads((tmp_path / "dataset.json").read_text())["test"]
  assert record["boxes"]["problems"] == {"empty": 1, "lost": 1}


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
  items = [*range(50), -1, *range(50, 100)]
  for num_processes in (1, 2):
    _write(tmp_path / str(num_processes), items, num_shards=5, num_processes=num_processes)
  assert _content(tmp_path / "1") == _content(tmp_path / "2")
  assert len(_content(tmp_path / "1")) == 5 + 3


# Converts in two processes; item 70 says that it is there and waits for the gate to open.
_BLOCKING_PROGRAM = """
import sys
from sasa_tf.data.tfrecord.sharded_writer import SplitPlan, write_dataset

def encode(item):
  from sasa_tf.data.examples import EncodedExample
  if item == 70:
    print("here", flush=True)
    with open(sys.argv[2], "rb", buffering=0) as gate:
      gate.read(1)
  return EncodedExample(b"x", "jpeg")

if __name__ == "__main__":
  plans = {"train": SplitPlan(range(100), 4)}
  write_dataset(sys.argv[1], plans, ["a"], encode, num_processes=2)
"""


@pytest.fixture
def blocked_conversion(tmp_path):
  """A conversion halted in the middle, its output directory, and the function to resume it."""
  program, gate, output = tmp_path / "program.py", tmp_path / "gate", tmp_path / "out"
  program.write_text(_BLOCKING_PROGRAM)
  os.mkfifo(gate)
  ours = os.open(gate, os.O_RDWR)  # Open from the start, so that it is never early or late.

  def resume():
    os.write(ours, b"go")

  with subprocess.Popen(
    [sys.executable, program, output, gate],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      assert process.stdout.readline() == "here\n"
      yield process, output, resume
    finally:
      process.kill()
      resume()
      os.close(ours)


def test_a_kill_leaves_no_final_name_no_worker_and_no_obstacle(blocked_conversion):
  process, output, resume = blocked_conversion
  assert list(output.glob(".train.incomplete/*"))
  process.kill()
  process.wait()
  resume()
  assert process.stdout.read() == ""  # Ends when the last worker has ended.
  assert not list(output.rglob("train-*"))
  assert not (output / "dataset.json").exists()
  _write(output, range(5), num_shards=1)
  assert sorted(_content(output)) == ["dataset.json", "labels.txt", "train-00000-of-00001.tfrecord"]
  assert not (output / ".train.incomplete").exists()
