import json

from sasa_tf.data.report import conversion_report
from sasa_tf.data.sharded_writer import DatasetSummary, SplitSummary


def _report(output, **splits):
  summaries = {name: SplitSummary(*figures) for name, figures in splits.items()}
  return conversion_report(DatasetSummary(str(output), summaries, 12.0, 2.0), "an_experiment")


def _record(output, **splits):
  records = {name: {"classes": 3, "formats": formats} for name, formats in splits.items()}
  (output / "dataset.json").write_text(json.dumps(records))


def test_counts_and_speed(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  report = _report(tmp_path, train=(49_990, 8, 1, 10, {"jpeg": 49_990}))
  assert "50,000 images in 12.0 s (2.0 s to start TensorFlow, then 5,000 images/s)" in report
  assert "train  49,990 examples, 1 class, 8 shards, 10 broken skipped" in report
  assert str(tmp_path / "skipped-train.txt") in report


def test_after_one_split_the_other_comes_next(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  report = _report(tmp_path, train=(1, 1, 3, 0, {"jpeg": 1}))
  assert report.endswith(f"--output={tmp_path} --split=validation")
  assert "skipped" not in report


def test_after_both_splits_training_comes_next(tmp_path):
  _record(tmp_path, train={"jpeg": 1}, validation={"jpeg": 1, "png": 1})
  report = _report(tmp_path, validation=(2, 1, 3, 0, {"jpeg": 1, "png": 1}))
  assert "--experiment=an_experiment" in report
  assert "task.model.num_classes=3" in report
  assert f"task.train_data.input_path='{tmp_path}/train-*.tfrecord'" in report
  # Model Garden's fast path reads JPEG alone.
  assert "task.validation_data.decode_jpeg_only=false" in report
  assert "task.train_data.decode_jpeg_only" not in report
