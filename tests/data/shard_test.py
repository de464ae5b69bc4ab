import pytest
import tensorflow as tf

from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.tfrecord import sharded_writer
from sasa_tf.data.tfrecord.image_example import EncodedExample, Problem
from sasa_tf.data.tfrecord.sharded_writer import ShardTask


def _encode(item):
  if item < 0:
    raise BrokenImageError(f"item {item}")
  return EncodedExample(str(item).encode(), "png" if item % 2 else "jpeg")


def _write_shard(path, items, encode=_encode, strict=False, report=lambda progress: None):
  return sharded_writer.write_shard(ShardTask(str(path), items, encode, strict), report)


def test_items_are_written_in_order_and_broken_ones_reported(tmp_path):
  reports = []
  result = _write_shard(tmp_path / "shard", [3, -1, 2, -2, 4], report=reports.append)
  records = list(tf.data.TFRecordDataset(str(tmp_path / "shard")).as_numpy_iterator())
  assert records == [b"3", b"2", b"4"]
  assert result.formats == {"png": 1, "jpeg": 2}
  assert result.skipped == ["item -1", "item -2"]
  assert reports[0] == (0, [])
  assert sum(report.items for report in reports) == 5
  assert [reason for report in reports for reason in report.skipped] == result.skipped


def test_progress_is_reported_during_the_work(tmp_path, monkeypatch):
  monkeypatch.setattr(sharded_writer, "_SECONDS_BETWEEN_REPORTS", -1)
  reports = []
  result = _write_shard(tmp_path / "shard", [1, -1, 2], report=reports.append)
  assert [report.items for report in reports] == [0, 1, 1, 1, 0]
  assert [report.skipped for report in reports] == [[], [], ["item -1"], [], []]
  assert result.skipped == ["item -1"]


def test_strict_raises_at_the_first_broken_item(tmp_path):
  seen = []

  def encode(item):
    seen.append(item)
    return _encode(item)

  with pytest.raises(DatasetError, match="item -1"):
    _write_shard(tmp_path / "shard", [1, -1, 2], encode, strict=True)
  assert seen == [1, -1]


def test_full_disk_raises():
  with pytest.raises(DatasetError, match="No space left on device"):
    _write_shard("/dev/full", [1, 2])


def _encode_annotated(item):
  problems = [Problem("empty", f"box of {item} is empty, dropped")] if item % 2 else []
  return EncodedExample(b"x", "jpeg", problems, annotations=item)


def test_annotations_and_problems_are_returned_in_order(tmp_path):
  result = _write_shard(tmp_path / "shard", [1, 2, 3], _encode_annotated)
  assert result.annotations == [1, 2, 3]
  assert [problem.message[:8] for problem in result.problems] == ["box of 1", "box of 3"]


def test_strict_raises_at_the_first_problem(tmp_path):
  with pytest.raises(DatasetError, match=r"box of 3 is empty\.\nFix .* omit --strict .*dropped"):
    _write_shard(tmp_path / "shard", [2, 3, 5], _encode_annotated, strict=True)
