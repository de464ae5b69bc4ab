import json

from sasa_tf.data.conversion_report import conversion_report
from sasa_tf.data.detection.box_stats import BoxFigures
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, SplitSummary


def _report(output, **splits):
  summaries = {name: SplitSummary(*figures) for name, figures in splits.items()}
  summary = DatasetSummary(str(output), summaries, 12.0, 2.0)
  return conversion_report(summary, "image_folder --input=...", "an_experiment")


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
  assert report.endswith(
    f"make_tfrecords image_folder --input=... --output={tmp_path} --split=validation"
  )
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


def _boxes(**changes):
  figures = {
    "by_class": {"cat": 2000, "dog": 3001},
    "crowds": 0,
    "images_without": 4,
    "most_in_an_image": 9,
    "problems": {},
  }
  return BoxFigures(**{**figures, **changes})


def test_boxes_are_counted_by_class_most_first(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  report = _report(tmp_path, train=(30, 1, 91, 0, {"jpeg": 30}, _boxes(crowds=5)))
  assert "train  30 examples, 2 classes and background, 1 shard\n" in report
  assert "5,001 boxes: dog 3,001, cat 2,000\n" in report
  assert "5 of them crowds" in report
  assert "at most 9 in an image; images without a box: 4\n" in report
  assert "Faulty" not in report and "max_num_instances" not in report


def test_many_classes_are_summed_up(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  boxes = _boxes(by_class={f"c{i}": i for i in range(80)})
  report = _report(tmp_path, train=(30, 1, 91, 0, {"jpeg": 30}, boxes))
  assert "3,160 boxes: c79 79, c78 78," in report
  assert f"c70 70, 70 others {sum(range(70)):,}\n" in report


def test_the_first_faulty_annotations_are_shown(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  listing = tmp_path / "problems-train.txt"
  listing.write_text("".join(f"{i}.xml: empty, dropped\n" for i in range(7)))
  boxes = _boxes(problems={"empty": 6, "outside of the picture": 1})
  report = _report(tmp_path, train=(30, 1, 3, 0, {"jpeg": 30}, boxes))
  assert f"Faulty annotations: empty 6, outside of the picture 1 (see {listing})" in report
  assert "4.xml: empty, dropped" in report and "5.xml" not in report


def test_more_boxes_than_model_garden_reads_are_told(tmp_path):
  _record(tmp_path, train={"jpeg": 1})
  boxes = _boxes(most_in_an_image=101)
  report = _report(tmp_path, train=(30, 1, 3, 0, {"jpeg": 30}, boxes))
  assert "task.train_data.parser.max_num_instances=101" in report


def test_training_on_boxes_names_the_annotation_file(tmp_path):
  records = {
    name: {"classes": 3, "formats": {"png": 1}, "boxes": {"crowds": 0}}
    for name in ("train", "validation")
  }
  (tmp_path / "dataset.json").write_text(json.dumps(records))
  report = _report(tmp_path, validation=(2, 1, 3, 0, {"png": 2}, _boxes()))
  assert f"task.annotation_file='{tmp_path}/validation.json'" in report
  assert "task.model.num_classes=3" in report
  assert "decode_jpeg_only" not in report  # which only classification has
