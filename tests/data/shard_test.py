import pytest
import tensorflow as tf

from sasa_tf.data.detection.boxes import CheckedImage, Problem
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.examples import EncodedExample
from sasa_tf.data.tfrecord.shard import write_shard


def _encode(item):
  if item < 0:
    raise BrokenImageError(f"item {item}")
  return EncodedExample(str(item).encode(), "png" if item % 2 else "jpeg")


def test_writes_items_in_order_and_reports_the_broken(tmp_path):
  reports = []
  result = write_shard(tmp_path / "shard", [3, -1, 2, -2, 4], _encode, False, reports.append)
  records = list(tf.data.TFRecordDataset(str(tmp_path / "shard")).as_numpy_iterator())
  assert records == [b"3", b"2", b"4"]
  assert result.formats == {"png": 1, "jpeg": 2}
  assert result.complaints == ["item -1", "item -2"]
  assert reports[0] == (0, [])
  assert sum(report.items for report in reports) == 5
  assert [line for report in reports for line in report.complaints] == result.complaints


def test_reports_while_it_works(tmp_path, monkeypatch):
  monkeypatch.setattr("sasa_tf.data.tfrecord.shard._SECONDS_BETWEEN_REPORTS", -1)
  reports = []
  result = write_shard(tmp_path / "shard", [1, -1, 2], _encode, False, reports.append)
  assert [report.items for report in reports] == [0, 1, 1, 1, 0]
  assert [report.complaints for report in reports] == [[], [], ["item -1"], [], []]
  assert result.complaints == ["item -1"]


def test_strict_stops_at_the_first_broken_item(tmp_path):
  seen = []

  def encode(item):
    seen.append(item)
    return _encode(item)

  with pytest.raises(DatasetError, match="item -1"):
    write_shard(tmp_path / "shard", [1, -1, 2], encode, True, lambda report: None)
  assert seen == [1, -1]


def test_a_full_disk_is_told():
  with pytest.raises(DatasetError, match="No space left on device"):
    write_shard("/dev/full", [1, 2], _encode, False, lambda report: None)


def _encode_boxes(item):
  problems = [Problem("empty", f"box of {item} is empty, dropped")] if item % 2 else []
  return EncodedExample(b"x", "jpeg", problems, CheckedImage(item, "n", 1, 1, ()))


def test_boxes_and_their_problems_are_handed_on_in_order(tmp_path):
  result = write_shard(tmp_path / "shard", [1, 2, 3], _encode_boxes, False, lambda report: None)
  assert [image.source_id for image in result.images] == [1, 2, 3]
  assert [problem.message[:8] for problem in result.problems] == ["box of 1", "box of 3"]


def test_strict_stops_at_the_first_problem_of_an_annotation(tmp_path):
  with pytest.raises(DatasetError, match=r"box of 3 is empty, dropped\nMend .* no --strict"):
    write_shard(tmp_path / "shard", [2, 3, 5], _encode_boxes, True, lambda report: None)
