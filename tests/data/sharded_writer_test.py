import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf.data.detection.annotated_images import BoxHooks
from sasa_tf.data.detection.box_stats import BoxStats
from sasa_tf.data.detection.boxes import Box, CheckedImage
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.tfrecord.image_example import EncodedExample, Problem
from sasa_tf.data.tfrecord.sharded_writer import SplitSummary, write_dataset
from sasa_tf.data.tfrecord.splits import SplitPlan, plan_split

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
  classes = options.pop("classes", ["a", "b"])
  return write_dataset(output, plans, classes, encode, **{"num_processes": 1, **options})


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
def test_automatic_number_of_shards(num_items, num_bytes, num_shards):
  assert plan_split("train", range(num_items), num_bytes).num_shards == num_shards


@pytest.mark.parametrize(
  ("name", "items", "num_shards", "message"),
  [
    ("train", [], 0, "'train' would be empty"),
    ("train", [1, 2], 3, "between 1 and the 2 images"),
    ("train", [1, 2], -1, "received -1"),
    ("train-a", [1], 0, "'train-a'"),
    ("../train", [1], 0, "letters, digits and _"),
    ("", [1], 0, "letters, digits and _"),
  ],
)
def test_invalid_plans_raise(name, items, num_shards, message):
  with pytest.raises(DatasetError, match=message):
    plan_split(name, items, 100, num_shards)


def test_items_are_written_once_in_order(tmp_path):
  summary = _write(tmp_path, range(20), num_shards=3)
  assert _records(tmp_path) == list(range(20))
  assert summary.splits == {"train": SplitSummary(20, 3, 2, 0, {"jpeg": 20})}
  assert 0 <= summary.startup_seconds <= summary.seconds


def test_classes_that_differ_only_in_case_or_normalization_are_reported(tmp_path, capsys):
  _write(tmp_path, classes=["Cat", "caf\u00e9", "cat", "cafe\u0301"])
  warnings = capsys.readouterr().err
  assert (
    r"case or Unicode normalization: 'Cat', 'cat'; 'caf\xe9', 'cafe\u0301'. If they" in warnings
  )


def test_shards_have_equal_sizes(tmp_path):
  _write(tmp_path, range(20), num_shards=3)
  sizes = [
    sum(1 for _ in tf.data.TFRecordDataset(str(path)))
    for path in sorted(tmp_path.glob("*.tfrecord"))
  ]
  assert sizes == [6, 7, 7]


def test_broken_items_are_skipped_and_listed(tmp_path, capsys):
  summary = _write(tmp_path, [1, -1, 2, -2, 3])
  assert _records(tmp_path) == [1, 2, 3]
  assert summary.splits["train"].skipped == 2
  assert (tmp_path / "skipped-train.txt").read_text() == "item -1 is broken\nitem -2 is broken\n"
  assert "Skipped item -1 is broken" in capsys.readouterr().err


def test_only_the_first_skipped_items_are_printed(tmp_path, capsys):
  _write(tmp_path, [1, *range(-30, 0)])
  assert capsys.readouterr().err.count("Skipped") == 10
  assert (tmp_path / "skipped-train.txt").read_text().count("\n") == 30


def test_strict_error_leaves_no_output(tmp_path):
  with pytest.raises(DatasetError, match=r"item -1 is broken\n.*omit --strict"):
    _write(tmp_path / "out", [1, 2, -1, 3], strict=True)
  assert not (tmp_path / "out").exists()


def test_split_with_only_broken_images_raises(tmp_path):
  with pytest.raises(DatasetError, match=r"all 3 images are broken.*\nitem -3"):
    _write(tmp_path / "out", [-3, -2, -1])
  assert not (tmp_path / "out").exists()


def test_interrupt_leaves_no_output(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _write(tmp_path / "out", fatal=15)
  assert not (tmp_path / "out").exists()


def test_negative_number_of_processes_raises(tmp_path):
  with pytest.raises(DatasetError, match="received -1"):
    _write(tmp_path / "out", num_processes=-1)


def test_class_names_are_checked_before_writing(tmp_path):
  with pytest.raises(DatasetError, match="occurs twice"):
    write_dataset(tmp_path / "out", {"train": SplitPlan([1], 1)}, ["a", "a"], None)


def _encode_boxes(item):
  if item < 0:
    raise BrokenImageError(f"item {item} is broken")
  image = CheckedImage(item, f"{item}.jpg", 9, 9, (Box(0.0, 1.0, 2.0, 3.0, 1, 4.0),) * (item % 3))
  return EncodedExample(b"x", "jpeg", [Problem("empty", f"{item}: empty")] * (item == 4), image)


def test_hooks_write_annotation_files_and_statistics(tmp_path):
  known = Problem("lost", "7: lost")
  summary = write_dataset(
    tmp_path,
    {"train": SplitPlan([5, -1, 2, 3], 2), "test": SplitPlan([4], 1, [known])},
    ["background", "a"],
    _encode_boxes,
    hooks=BoxHooks([{"id": 1, "name": "a"}]),
    num_processes=1,
  )
  train, test = summary.splits["train"], summary.splits["test"]
  assert train.annotation_stats == BoxStats({"a": 4}, 0, 1, 2, {})
  assert test.annotation_stats == BoxStats({"a": 1}, 0, 0, 1, {"empty": 1, "lost": 1})
  assert (train.files, test.files) == (["train.json"], ["test.json", "problems-test.txt"])
  content = json.loads((tmp_path / "train.json").read_text())
  assert [image["id"] for image in content["images"]] == [2, 3, 5]
  assert (tmp_path / "problems-test.txt").read_text() == "7: lost\n4: empty\n"
  record = json.loads((tmp_path / "dataset.json").read_text())["test"]
  assert record["boxes"]["problems"] == {"empty": 1, "lost": 1}


def test_output_does_not_depend_on_the_number_of_processes(tmp_path):
  items = [*range(50), -1, *range(50, 100)]
  for num_processes in (1, 2):
    _write(tmp_path / str(num_processes), items, num_shards=5, num_processes=num_processes)
  assert _content(tmp_path / "1") == _content(tmp_path / "2")
  assert len(_content(tmp_path / "1")) == 5 + 3


# Converts in two processes; item 70 prints a line and blocks until the gate is opened.
_BLOCKING_PROGRAM = """
import sys
from sasa_tf.data.tfrecord.image_example import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import write_dataset
from sasa_tf.data.tfrecord.splits import SplitPlan

def encode(item):
  if item == 70:
    print("blocked", flush=True)
    with open(sys.argv[2], "rb", buffering=0) as gate:
      gate.read(1)
  return EncodedExample(b"x", "jpeg")

if __name__ == "__main__":
  plans = {"train": SplitPlan(range(100), 4)}
  write_dataset(sys.argv[1], plans, ["a"], encode, num_processes=2)
"""


@pytest.fixture
def blocked_conversion(tmp_path):
  """A blocked conversion process, its output directory, and a function that resumes it."""
  program, gate, output = tmp_path / "program.py", tmp_path / "gate", tmp_path / "out"
  program.write_text(_BLOCKING_PROGRAM)
  os.mkfifo(gate)
  gate_descriptor = os.open(gate, os.O_RDWR)  # Opened first, to avoid a race.

  def resume():
    os.write(gate_descriptor, b"go")

  with subprocess.Popen(
    [sys.executable, program, output, gate],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      assert process.stdout.readline() == "blocked\n"
      yield process, output, resume
    finally:
      process.kill()
      resume()
      os.close(gate_descriptor)


def test_kill_leaves_no_final_files_and_no_workers(blocked_conversion):
  process, output, resume = blocked_conversion
  assert list(output.glob(".train.incomplete/*"))
  process.kill()
  process.wait()
  resume()
  assert process.stdout.read() == ""  # End of file once the last worker has exited.
  assert not list(output.rglob("train-*"))
  assert not (output / "dataset.json").exists()
  _write(output, range(5), num_shards=1)
  assert sorted(_content(output)) == ["dataset.json", "labels.txt", "train-00000-of-00001.tfrecord"]
  assert not (output / ".train.incomplete").exists()
