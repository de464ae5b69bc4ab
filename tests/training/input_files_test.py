"""Data in directories whose names have commas, brackets, quotes and stars."""

import pathlib
import shlex

import pytest
from official.core import input_reader

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.data import conversion_report
from sasa_tf.data.classification.digits import CLASS_NAMES
from sasa_tf.data.detection.box_stats import BoxStats
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, SplitSummary
from sasa_tf.errors import UserError
from sasa_tf.training import checks, experiment, input_files

NAMES = ["set[1]", "a,b", "x [lr=1e-3], v1", "a*", "back\\slash", "it's", 'a "b"', "$HOME", "é{ü}"]


def write(directory, *names):
  directory.mkdir(parents=True, exist_ok=True)
  for name in names:
    (directory / name).write_text(f"\0{name}")  # unlike text, perhaps a corrupt record


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", ["train-*", "train-0", "t?ain-[0-9]"])
def test_existing_directories_are_taken_literally(tmp_path, name, pattern):
  for other in ("set1", "ab", name):
    write(tmp_path / other, "train-0", "validation-0")
  assert input_files.find_input_files(f"{tmp_path}/{name}/{pattern}") == [
    f"{tmp_path}/{name}/train-0"
  ]


def test_lists_and_patterns(tmp_path):
  for directory in ("a,b", "c", "d1", "d2"):
    write(tmp_path / directory, "train-0", "train-1", "train,2")
  path = f"{tmp_path}/a,b/train-*, {tmp_path}/c/train-0,{tmp_path}/d*/train-1,{tmp_path}/c/train,2"
  expected = ["a,b/train-0", "a,b/train-1", "c/train-0", "d1/train-1", "d2/train-1", "c/train,2"]
  expected = [f"{tmp_path}/{name}" for name in expected]
  assert sorted(input_files.find_input_files(path)) == sorted(expected)
  assert input_files.find_input_files([*expected[:2], f"{tmp_path}/missing-*"]) == expected[:2]
  found = input_files.match_patterns(f"{tmp_path}/c/train-0,{tmp_path}/missing-*")
  assert found == {f"{tmp_path}/c/train-0": [f"{tmp_path}/c/train-0"], f"{tmp_path}/missing-*": []}


@pytest.mark.parametrize("name", NAMES)
def test_model_garden_reads_the_same_files(tmp_path, name):
  write(tmp_path / name, "train-0", "train-1", "labels.txt")
  path = f"{tmp_path}/{name}/train-*"
  data = experiment.load_experiment("sasa_resnet_digits").task.train_data.replace(input_path=path)
  (tmp_path / name / "labels.txt").write_text("a\n")
  checks.check_data("task.train_data", data)
  task = experiment.load_experiment("sasa_resnet_digits").task
  task = input_files.with_literal_paths(task.replace(train_data=data))
  files = input_reader.match_files(task.train_data.input_path)
  assert sorted(pathlib.Path(file).read_text() for file in files) == ["\0train-0", "\0train-1"]
  assert str(checks.find_label_file(path)) == f"{tmp_path}/{name}/labels.txt"


def test_ordinary_paths_are_left_to_model_garden(tmp_path):
  write(tmp_path, "train-0", "validation-0")
  task = experiment.load_experiment("sasa_resnet_digits").task
  data = task.train_data.replace(input_path=f"{tmp_path}/train-*,{tmp_path}/validation-0")
  task = task.replace(train_data=data)
  assert input_files.with_literal_paths(task) == task


def test_directory_raises(tmp_path):
  data = experiment.load_experiment("sasa_resnet_digits").task.train_data
  with pytest.raises(UserError, match=f"{tmp_path} is a directory; expected TFRecord files"):
    checks.check_data("task.train_data", data.replace(input_path=str(tmp_path)))


def printed_training(output, split, experiment_name, **options):
  """Returns --model_dir and the experiment of the training command in a conversion's report."""
  summary = DatasetSummary(str(output), {"train": split}, 12.0, 2.0)
  report = conversion_report.conversion_report(summary, "digits", experiment_name, **options)
  command = report.partition("Next:\n")[2].replace("\\\n", "")
  *_, model_dir, overrides = shlex.split(command)
  return model_dir, experiment.load_experiment(
    experiment_name, params_override=overrides.removeprefix("--params_override=")
  )


@pytest.mark.parametrize("name", [*NAMES, """both ' and " """.strip(), "a: b #c", "`!`"])
def test_printed_training_command_reads_the_data(tmp_path, name):
  """The command is split as a shell does and its overrides are parsed as `train` does."""
  records = {"classes": 10, "formats": {"png": 1}}
  write(tmp_path / name)
  conversion_report.OutputDirectory(tmp_path / name).commit(
    {split: {"shards": 0, **records} for split in ("train", "validation")},
    ["a"],
    {"train": [], "validation": []},
  )
  split = SplitSummary(2, 1, 10, 0, {"png": 2})
  model_dir, params = printed_training(tmp_path / name, split, "sasa_resnet_digits")
  assert model_dir == f"--model_dir=runs/{name}"
  assert params.task.train_data.input_path == f"{tmp_path}/{name}/train-*.tfrecord"
  assert params.task.validation_data.decode_jpeg_only is False
  assert params.task.train_data.tfds_name == ""


@pytest.mark.parametrize(
  ("experiment_name", "split"),
  [
    ("sasa_resnet_digits", SplitSummary(2, 1, len(CLASS_NAMES), 0, {"png": 2})),
    (
      "retinanet_sasa_scenes",
      SplitSummary(
        2,
        1,
        1 + len(CLASS_NAMES),
        0,
        {"jpeg": 2},
        BoxStats(dict.fromkeys(CLASS_NAMES, 1), 0, 0, 5, {}),
      ),
    ),
  ],
)
def test_experiments_of_generated_data_need_its_paths_alone(
  tmp_path, monkeypatch, experiment_name, split
):
  monkeypatch.chdir(tmp_path)
  for directory in ("data", "a,b"):
    write(tmp_path / directory)
    conversion_report.OutputDirectory(directory).commit(
      {name: {"shards": 0, "formats": split.formats} for name in ("train", "validation")},
      CLASS_NAMES,
      {"train": [], "validation": []},
    )
    _, complete = printed_training(directory, split, experiment_name)
    _, short = printed_training(directory, split, experiment_name, only_paths=True)
    assert short.as_dict() == complete.as_dict()
    assert short.task.validation_data.input_path == f"{directory}/validation-*.tfrecord"


def test_unquoted_special_characters_in_overrides():
  params = experiment.load_experiment(
    "sasa_resnet_digits", params_override="task.train_data.input_path=data/set[1]/train-*"
  )
  assert params.task.train_data.input_path == "data/set[1]/train-*"
  with pytest.raises(UserError, match=r"cannot be parsed: .* needs quotes"):
    experiment.load_experiment(
      "sasa_resnet_digits", params_override="task.train_data.input_path=data/a,b/train-*"
    )


@pytest.mark.parametrize("address", ["http://host/train-*", "s3://bucket/train-*", "foo://a/b"])
def test_file_systems_that_tensorflow_lacks_are_named(address):
  with pytest.raises(UserError, match=r"^input_path=\w+://.*no file system for this address"):
    input_files.find_input_files(address)
