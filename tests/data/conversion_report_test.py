import json

from sasa_tf.data.conversion_report import conversion_report
from sasa_tf.data.detection.box_stats import BoxStats
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, SplitSummary


def _report(output, **splits):
  summaries = {name: SplitSummary(*statistics) for name, statistics in splits.items()}
  summary = DatasetSummary(str(output), summaries, 12.0, 2.0)
  return conversion_report(summary, "image_folder --input=...", "an_experiment")


def _record(output, **splits):
  records = {name: {"classes": 3, "formats": formats} for name, formats in splits.items()}
  (output / "dataset.json").write_text(json.dumps(records))


def test_report_contains_counts_and_speed(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  report = _report(tmp_path, train=(49_990, 8, 1, 10, {"jpeg": 49_990}))
  assert (
    ": 49,990 of 50,000 images in 12.0 s (2.0 s to start TensorFlow, then 5,000 images/s)" in report
  )
  assert "train  49,990 examples, 1 class, 8 shards, 10 broken images skipped" in report
  assert str(tmp_path / "skipped-train.txt") in report


def test_next_command_converts_the_missing_split(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  report = _report(tmp_path, train=(1, 1, 3, 0, {"jpeg": 1}))
  assert report.endswith(
    f"make_tfrecords image_folder --input=... --output={tmp_path} --split=validation"
  )
  assert "skipped" not in report


def test_next_command_trains_once_both_splits_exist(tmp_path):
  _record(tmp_path, train={"jpeg": 1}, validation={"jpeg": 1, "png": 1})
  report = _report(tmp_path, validation=(2, 1, 3, 0, {"jpeg": 1, "png": 1}))
  assert "--experiment=an_experiment" in report
  assert "task.model.num_classes=3" in report
  assert f"task.train_data.input_path='{tmp_path}/train-*.tfrecord'" in report
  # Model Garden's fast path reads only JPEG.
  assert "task.validation_data.decode_jpeg_only=false" in report
  assert "task.train_data.decode_jpeg_only" not in report


def _boxes(**changes):
  statistics = {
    "by_class": {"cat": 2000, "dog": 3001},
    "crowds": 0,
    "images_without": 4,
    "most_in_an_image": 9,
    "problems": {},
  }
  return BoxStats(**{**statistics, **changes})


def test_box_counts_are_sorted_in_descending_order(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  report = _report(tmp_path, train=(30, 1, 91, 0, {"jpeg": 30}, _boxes(crowds=5)))
  assert "train  30 examples, 2 classes and background, 1 shard\n" in report
  assert "5,001 boxes: dog 3,001, cat 2,000\n" in report
  assert "crowds among them, which training and evaluation ignore: 5\n" in report
  assert "most boxes in one image: 9; images without boxes: 4\n" in report
  assert "Invalid" not in report and "max_num_instances" not in report


def test_counts_of_many_classes_are_summed(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  boxes = _boxes(by_class={f"c{i}": i for i in range(80)})
  report = _report(tmp_path, train=(30, 1, 91, 0, {"jpeg": 30}, boxes))
  assert "3,160 boxes: c79 79, c78 78," in report
  assert f"c70 70, 70 others {sum(range(70)):,}\n" in report


def test_first_invalid_annotations_are_shown(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  listing = tmp_path / "problems-train.txt"
  listing.write_text("".join(f"{i}.xml: empty, dropped\n" for i in range(7)))
  boxes = _boxes(problems={"empty": 6, "outside the image": 1})
  report = _report(tmp_path, train=(30, 1, 3, 0, {"jpeg": 30}, boxes))
  assert f"Invalid annotations: empty 6, outside the image 1 (see {listing})" in report
  assert "4.xml: empty, dropped" in report and "5.xml" not in report


def test_report_warns_of_more_boxes_than_model_garden_reads(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  boxes = _boxes(most_in_an_image=101)
  report = _report(tmp_path, train=(30, 1, 3, 0, {"jpeg": 30}, boxes))
  assert "task.train_data.parser.max_num_instances=101" in report


def test_training_command_for_boxes_sets_the_annotation_file(tmp_path):
  records = {
    name: {"classes": 3, "formats": {"png": 1}, "boxes": {"crowds": 0}}
    for name in ("train", "validation")
  }
  (tmp_path / "dataset.json").write_text(json.dumps(records))
  report = _report(tmp_path, validation=(2, 1, 3, 0, {"png": 2}, _boxes()))
  assert f"task.annotation_file='{tmp_path}/validation.json'" in report
  assert "task.model.num_classes=3" in report
  assert "decode_jpeg_only" not in report  # Only classification has this setting.
