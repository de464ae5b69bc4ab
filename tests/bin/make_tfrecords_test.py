import inspect
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags

from sasa_tf.bin import make_tfrecords
from sasa_tf.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "sasa_tf.bin.make_tfrecords"]


def _run(*arguments):
  values = flags.FlagValues()
  make_tfrecords.define_flags(values)
  return make_tfrecords.execute(values(["make_tfrecords", *map(str, arguments)]), values)


@pytest.fixture
def images(tmp_path):
  encoded = tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8)).numpy()
  for name in ("cat", "dog"):
    (tmp_path / "images" / name).mkdir(parents=True)
    for i in range(5):
      (tmp_path / "images" / name / f"{i}.jpg").write_bytes(encoded)
  return tmp_path / "images"


def test_help_lists_the_subcommands_without_importing_tensorflow():
  program = (
    "import runpy, sys\n"
    "sys.argv = ['make_tfrecords', '--help']\n"
    "try:\n"
    "  runpy.run_module('sasa_tf.bin.make_tfrecords', run_name='__main__')\n"
    "finally:\n"
    "  assert 'tensorflow' not in sys.modules and 'sklearn' not in sys.modules\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert "AssertionError" not in result.stderr
  assert "--validation_fraction: [image_folder, voc, coco]" in result.stdout
  assert "--num_preview_images: [digits, scenes]" in result.stdout
  assert "--annotations: [voc, coco]" in result.stdout


@pytest.mark.parametrize("name", make_tfrecords.COMMANDS)
def test_flags_and_converters_have_the_same_defaults(name):
  values = flags.FlagValues()
  make_tfrecords.define_flags(values)
  for flag, parameter in make_tfrecords.COMMANDS[name].parameters.items():
    if parameter.default is not inspect.Parameter.empty:
      assert values[flag].default == parameter.default


def test_converts_and_prints_the_next_command(images, tmp_path, capsys):
  arguments = ["--input", images, "--output", tmp_path / "out", "--num_processes=1"]
  _run("image_folder", *arguments, "--validation_fraction=0.2", "--num_shards=2")
  assert len(list((tmp_path / "out").glob("train-*-of-00002.tfrecord"))) == 2
  assert len(list((tmp_path / "out").glob("validation-*-of-00002.tfrecord"))) == 2
  report = capsys.readouterr().out
  assert "train       8 examples, 2 classes, 2 shards" in report
  assert "sasa_tf.bin.train --experiment=sasa_resnet_imagenet" in report


def test_generates_scenes_and_prints_the_next_command(tmp_path, capsys):
  counts = ["--train_images=3", "--validation_images=2", "--num_preview_images=1", "--size=64"]
  _run("scenes", "--output", tmp_path / "out", *counts)
  report = capsys.readouterr().out
  assert "train       3 examples, 10 classes and background, 1 shard" in report
  assert "num_classes" not in report  # The experiment has it.
  assert f"task.annotation_file='{tmp_path}/out/validation.json'" in report


def test_next_command_has_all_required_flags(tmp_path, capsys):
  (tmp_path / "images").mkdir()
  (tmp_path / "images/1.jpg").write_bytes(tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8)).numpy())
  content = {
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 1, 20, 3]}],
    "categories": [{"id": 2, "name": "cat"}],
  }
  (tmp_path / "a.json").write_text(json.dumps(content))
  inputs = ["--input", tmp_path / "images", "--annotations", tmp_path / "a.json"]
  _run("coco", *inputs, "--output", tmp_path / "out")
  report = capsys.readouterr().out
  assert "Invalid annotations: partly outside the image 1" in report
  command = f"coco --input=... --annotations=... --output={tmp_path}/out --split=validation"
  assert report.rstrip().endswith(command)


# Valid entries among such as hostile or careless programs write.
HOSTILE_INSTANCES = """\ufeff{
  "images": [
    {"id": 7, "file_name": ".\\\\1.jpg", "height": 1e400, "width": "40"},
    {"id": 8, "file_name": "../images/1.jpg"}, {"id": 9223372036854775808, "file_name": "1.jpg"},
    {"id": 3, "file_name": "a\\u0000b.jpg"}, {"id": 4, "file_name": "\\ud800.jpg"}, 5],
  "annotations": [
    {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": "0", "area": NaN},
    {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 1, LONG, 4]}, {"image_id": []}],
  "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "Cat "}, {"id": "3", "name": "x"}]
}""".replace("LONG", "9" * 5000)


def test_conversion_of_hostile_annotations_reports_them(images, tmp_path, capsys):
  (tmp_path / "a.json").write_text(HOSTILE_INSTANCES)
  arguments = [f"--input={images}/cat", f"--annotations={tmp_path}/a.json"]
  _run("coco", *arguments, f"--output={tmp_path}/out", "--num_processes=1")
  output, stderr = capsys.readouterr()
  assert "train  1 example, 2 classes and background, 1 shard, 5 broken images skipped" in output
  assert "1 box: cat 1, Cat 0" in output and "crowds" not in output
  for problem in ("with an invalid image_id", "with an invalid area", "with an invalid size"):
    assert f"{problem} 1" in output
  assert "category without a valid id 1, not a finite number 1" in output
  assert "Warning: classes that differ only in case" in stderr
  assert stderr.count("Skipped ") == 5


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "expected a subcommand, one of: image_folder, digits, voc, coco, scenes"),
    (["cifar"], "unknown subcommand 'cifar', expected one of: image_folder, digits"),
    (["coco", "--input=in", "--output=out"], "coco requires --annotations"),
    (
      ["coco", "--input=in", "--output=out", "--coordinate_origin=0"],
      "coco has no flag --coordinate_origin",
    ),
    (["coco", "--input=in", "--output=out", "--annotations=x.json"], r"cannot read x\.json"),
    (["voc", "--input=/nowhere", "--output=out"], "cannot read /nowhere"),
    (["digits"], "digits requires --output"),
    (["image_folder", "--output=out"], "image_folder requires --input"),
    (["digits", "--output=out", "--strict"], "digits has no flag --strict. Its flags: --output"),
    (["digits", "out"], "unexpected arguments after the flags: out"),
    (["image_folder", "--input=/nowhere", "--output=out"], "cannot read /nowhere"),
  ],
)
def test_invalid_arguments_raise(arguments, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    _run(*arguments)
  assert not list(tmp_path.iterdir())


def test_system_errors_become_user_errors(monkeypatch):
  def convert(output):
    raise OSError(28, "No space left on device", output)

  monkeypatch.setitem(make_tfrecords.COMMANDS, "new", make_tfrecords.Command(convert, "x"))
  with pytest.raises(UserError, match="No space left on device: 'out'"):
    _run("new", "--output=out")


def test_subcommand_is_defined_by_its_entry(monkeypatch, capsys):
  def convert(input, output, *, seed=0):
    from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, SplitSummary

    assert (input, output, seed) == ("in", "/nowhere", 7)
    return DatasetSummary(output, {"train": SplitSummary(1, 1, 1, 0, {"jpeg": 1})}, 2.0, 1.0)

  monkeypatch.setitem(make_tfrecords.COMMANDS, "new", make_tfrecords.Command(convert, "x"))
  _run("new", "--input=in", "--output=/nowhere", "--seed=7")
  assert "1 example, 1 class" in capsys.readouterr().out
  with pytest.raises(UserError, match="new has no flag --strict"):
    _run("new", "--input=in", "--output=out", "--strict")


def test_sigint_stops_all_processes_with_one_message(images, tmp_path):
  encoded = tf.io.encode_jpeg(tf.zeros([3000, 3000, 3], tf.uint8)).numpy()
  (tmp_path / "large.jpg").write_bytes(encoded)
  for i in range(400):  # A minute of decoding; a broken image shows that it has started.
    (images / "cat" / f"large{i}.jpg").symlink_to(tmp_path / "large.jpg")
    (images / "cat" / f"empty{i}.jpg").write_bytes(b"")
  arguments = [f"--input={images}", f"--output={tmp_path}/out", "--num_shards=8"]
  process = subprocess.Popen(
    [*PROGRAM, "image_folder", *arguments, "--num_processes=2"],
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    # Background jobs of a shell ignore SIGINT, and the tests may be one.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  for line in process.stderr:
    if "Skipped" in line:
      break
  os.killpg(process.pid, signal.SIGINT)  # Like a terminal, which signals the workers too.
  _, stderr = process.communicate()  # Returns once no process has the pipe open.
  assert process.returncode == 130
  assert stderr.splitlines()[-1] == "interrupted; nothing of this run was saved."
  assert "Traceback" not in stderr
  assert not (tmp_path / "out").exists()
