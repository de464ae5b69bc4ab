"""Error messages for missing data."""

import functools
import os
import re

import pytest
import tensorflow as tf
from absl import logging
from official.core import train_utils

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import UserError
from sasa_tf.training import checks, experiment
from tests.broken_files import BROKEN
from tests.data import image_bombs


@pytest.mark.parametrize(
  ("name", "converters"),
  [
    ("sasa_resnet_digits", {"digits", "image_folder"}),
    ("retinanet_sasa_scenes", {"scenes", "voc", "coco"}),
  ],
)
def test_error_for_missing_records_suggests_the_converters_of_the_task(name, converters, tmp_path):
  override = f"task.train_data.input_path={tmp_path}/train-*"
  data = experiment.load_experiment(name, params_override=override).task.train_data
  with pytest.raises(UserError, match="make_tfrecords") as caught:
    checks.check_data("task.train_data", data)
  words = set(str(caught.value).replace("(", " ").split())
  assert words & {"digits", "image_folder", "scenes", "voc", "coco"} == converters


# Parses, but lacks what is read.
INCOMPLETE = {
  "no key": b"{}",
  "wrong type": b'{"experiment": {"a": 1}, "task": [1]}',
  "no model": b"task: {train_data: {}}",
  "no backbone": b"task: {model: {backbone: 3}}",
  "unknown backbone": b"task: {model: {backbone: {type: sasa_resnet}}}",
  "large": b" " * 2_000_000,
}
STATES = BROKEN | INCOMPLETE
NO_MODEL = r"params\.yaml: expected the configuration .*task\.model\.backbone.* Restore the file"


@pytest.mark.parametrize("content", STATES.values(), ids=STATES)
def test_broken_state_files_are_named(content, tmp_path):
  tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
  params = experiment.load_experiment("sasa_resnet_digits")
  (tmp_path / "params.yaml").write_bytes(content)
  for train in (True, False):
    with pytest.raises(UserError, match=NO_MODEL):
      checks.check_model_dir(str(tmp_path), params, train=train)
  with pytest.raises(UserError, match=NO_MODEL):
    checks.resolve_init_checkpoint(params.task.replace(init_checkpoint=str(tmp_path)))
  (tmp_path / "run.json").write_text('{"experiment": "sasa_resnet_digits"}')
  with pytest.raises(UserError, match=NO_MODEL):
    experiment.load_trained_experiment(str(tmp_path), None)
  (tmp_path / "run.json").write_bytes(content)
  with pytest.raises(UserError, match=r"run\.json: expected a JSON object with the name"):
    experiment.load_trained_experiment(str(tmp_path), None)


@pytest.mark.parametrize("create", [os.mkdir, os.mkfifo])
def test_state_files_that_are_no_files_are_named(create, tmp_path):
  (tmp_path / "run.json").write_text('{"experiment": "sasa_resnet_digits"}')
  create(tmp_path / "params.yaml")
  with pytest.raises(UserError, match=r"params\.yaml: expected .*received (a directory|a pipe)"):
    experiment.load_trained_experiment(str(tmp_path), None)
  (tmp_path / "run.json").unlink()
  create(tmp_path / "run.json")
  with pytest.raises(UserError, match=r"run\.json: expected .*it is a directory, a pipe"):
    experiment.load_trained_experiment(str(tmp_path), None)


@pytest.mark.parametrize(
  ("name", "create", "kind"),
  [
    ("checkpoint", os.mkdir, "a directory"),
    ("params.yaml", os.mkfifo, "a pipe or a device"),
    ("run_log.jsonl", os.mkdir, "a directory"),
    ("best_ckpt/info.json", os.makedirs, "a directory"),
    ("best_ckpt", lambda path: path.touch(), "a file"),
    ("train", lambda path: path.touch(), "a file"),
  ],
)
def test_names_of_a_training_that_are_taken_are_named(name, create, kind, tmp_path):
  create(tmp_path / name)
  params = experiment.load_experiment("sasa_resnet_digits")
  with pytest.raises(UserError, match=f"{tmp_path}/{name} is {kind}; expected .*Move it"):
    checks.check_model_dir(str(tmp_path), params, train=True)


def test_directories_behind_broken_links_are_named(tmp_path):
  (tmp_path / "train").symlink_to(tmp_path / "missing")
  params = experiment.load_experiment("sasa_resnet_digits")
  with pytest.raises(UserError, match=f"{tmp_path}/train is a link that leads to no directory"):
    checks.check_model_dir(str(tmp_path), params, train=True)


@pytest.mark.parametrize("name", ["labels.txt", "params.yaml"])
def test_files_behind_links_are_not_overwritten(name, tmp_path):
  (tmp_path / "mine").write_text("keep")
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
  params = experiment.load_experiment("sasa_resnet_digits")
  with pytest.raises(UserError, match=f"{name} is a link to {tmp_path}/mine, which .* overwrite"):
    checks.check_model_dir(str(tmp_path / "run"), params, train=True)


def test_saved_values_of_wrong_types_are_named(tmp_path):
  params = experiment.load_experiment("sasa_resnet_digits")
  tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
  train_utils.serialize_config(params, str(tmp_path))
  file = tmp_path / "params.yaml"
  written = file.read_text()
  assert "num_classes: 10\n" in written
  file.write_text(written.replace("num_classes: 10\n", "num_classes: [ten]\n"))
  (tmp_path / "run.json").write_text('{"experiment": "sasa_resnet_digits"}')
  with pytest.raises(
    UserError, match=r"num_classes=\['ten'\] \(.*/params\.yaml\): expected an int"
  ):
    experiment.load_trained_experiment(str(tmp_path), None, mode="export")
  for train in (True, False):
    with pytest.raises(UserError, match=r"num_classes: \['ten'\] in the checkpoint, 10 in this"):
      checks.check_model_dir(str(tmp_path), params, train=train)
  run_file = tmp_path / "run.json"
  run_file.write_text('{"experiment": "sasa_resnet_digit"}')
  with pytest.raises(UserError, match=rf"{run_file}: unknown experiment .*, or set --experiment"):
    experiment.load_trained_experiment(str(tmp_path), None)
  run_file.write_text('{"experiment": "sasa_resnet_digits"}')
  file.unlink()
  with pytest.raises(UserError, match=rf"{file}: .*No such file.* Restore the file"):
    experiment.load_trained_experiment(str(tmp_path), None)


@pytest.mark.parametrize(
  ("saved", "current", "problem"),
  [
    ("ema=null", "ema={average_decay: 0.9}", r"optimizer_config\.ema: null before, set now"),
    ("ema={average_decay: 0.9}", "ema=null", r"optimizer_config\.ema: set before, null now"),
    ("optimizer.type=sgd", "optimizer.type=adamw", r"optimizer\.type: 'sgd' before, 'adamw' now"),
  ],
)
def test_optimizer_without_state_in_the_checkpoint_is_rejected(saved, current, problem, tmp_path):
  """A changed optimizer would restart, and averaged weights would start at random ones."""
  key = "trainer.optimizer_config"
  load = functools.partial(experiment.load_experiment, "sasa_resnet_digits")
  tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
  train_utils.serialize_config(load(params_override=f"{key}.{saved}"), str(tmp_path))
  params = load(params_override=f"{key}.{current}")
  with pytest.raises(UserError, match=f"{problem}.* with task.init_checkpoint={tmp_path}/ckpt-1"):
    checks.check_model_dir(str(tmp_path), params, train=True)
  if "set now" in problem:  # an evaluation reads no other state of the optimizer
    with pytest.raises(UserError, match=problem):
      checks.check_model_dir(str(tmp_path), params, train=False)
  else:
    checks.check_model_dir(str(tmp_path), params, train=False)


def test_settings_that_an_earlier_version_lacked_have_their_defaults(tmp_path):
  key, heads = (f"task.model.backbone.sasa_resnet.{k}" for k in ("locality_strength", "num_heads"))
  tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
  params = experiment.load_experiment("sasa_resnet_digits")
  train_utils.serialize_config(params, str(tmp_path))
  file = tmp_path / "params.yaml"
  written = file.read_text()
  file.write_text(re.sub(" +locality_strength: 0.0\n", "", written))
  assert file.read_text() != written
  checks.check_model_dir(str(tmp_path), params, train=True)
  params = experiment.load_experiment("sasa_resnet_digits", params_override=f"{key}=2,{heads}=1")
  with pytest.raises(UserError, match=r"locality_strength: 0\.0 in the checkpoint, 2\.0 in this"):
    checks.check_model_dir(str(tmp_path), params, train=True)


@pytest.mark.parametrize("content", ["", "\0\1", "model_checkpoint_path: 3", "nonsense {"])
def test_evaluation_with_a_broken_checkpoint_file(content, tmp_path):
  """A training repairs the file; an evaluation uses the latest checkpoint or names the file."""
  tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
  params = experiment.load_experiment("sasa_resnet_digits")
  train_utils.serialize_config(params, str(tmp_path))
  (tmp_path / "checkpoint").write_text(content)
  try:
    checks.check_model_dir(str(tmp_path), params, train=False)
  except UserError as error:
    assert "/checkpoint is corrupt" in str(error) and "Remove the file" in str(error)
  else:
    tf.train.CheckpointManager(tf.train.Checkpoint(), str(tmp_path), 1)
  (tmp_path / "checkpoint").unlink()
  checks.check_model_dir(str(tmp_path), params, train=False)


@pytest.mark.parametrize("name", ["lr=1e-3", "a: b", "x [1]", "{a}"])
def test_configuration_is_read_from_any_directory(name, tmp_path, monkeypatch):
  """Model Garden takes such a relative path for the content of a file."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / name).mkdir()
  (tmp_path / name / "run.json").write_text('{"experiment": "sasa_resnet_digits"}')
  (tmp_path / name / "params.yaml").write_text(
    "{trainer: {train_steps: 7}, task: {model: {backbone: {type: sasa_resnet, sasa_resnet: {}}}}}"
  )
  assert experiment.load_trained_experiment(name, None).trainer.train_steps == 7


def digits(folder, file_type="tfrecord"):
  override = f"task.train_data.input_path={folder}/train-*,task.train_data.file_type={file_type}"
  return experiment.load_experiment("sasa_resnet_digits", params_override=override).task.train_data


@pytest.mark.parametrize("file_type", ["tfrecord", "tfrecord_compressed"])
def test_data_without_a_record_is_rejected(tmp_path, file_type):
  compression = "" if file_type == "tfrecord" else "GZIP"
  for shard in range(2):
    tf.io.TFRecordWriter(str(tmp_path / f"train-{shard}"), compression).close()
  with pytest.raises(UserError, match="the 2 files have no records"):
    checks.check_data("task.train_data", digits(tmp_path, file_type))


def test_patterns_that_match_a_directory_or_need_a_shell(tmp_path):
  (tmp_path / "previews").mkdir()
  (tmp_path / "train-0").touch()
  data = digits(tmp_path).replace(input_path=f"{tmp_path}/*")
  with pytest.raises(UserError, match=f"previews is a directory.* path to {tmp_path}/train-"):
    checks.check_data("task.train_data", data)
  data = data.replace(input_path="~/missing/train-*")
  with pytest.raises(
    UserError, match=r"Only a shell expands ~ and \$: write /.*/missing/train-\*\."
  ):
    checks.check_data("task.train_data", data)


def test_pipe_among_the_files_is_rejected_without_reading_it(tmp_path):
  os.mkfifo(tmp_path / "train-0")
  with pytest.raises(UserError, match=r"train-0 is a pipe or a device; expected TFRecord files"):
    checks.check_data("task.train_data", digits(tmp_path))


def test_files_of_other_formats_are_rejected(tmp_path):
  (tmp_path / "train-0").write_text('{"train": {}}')
  message = r"train-0 is a text file; expected TFRecord files\. Write them with .*make_tfrecords"
  with pytest.raises(UserError, match=message):
    checks.check_data("task.train_data", digits(tmp_path))


def test_shuffle_buffer_that_does_not_fit_into_the_memory_is_rejected(tmp_path, monkeypatch):
  with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
    writer.write(b"\0" * 1000)
  data = digits(tmp_path)
  monkeypatch.setattr(checks.memory, "available_memory", lambda: 999 * data.shuffle_buffer_size)
  message = r"task\.train_data\.shuffle_buffer_size=2000: .* of 1,000 bytes each.*Use at most 999\."
  with pytest.raises(UserError, match=message):
    checks.check_data("task.train_data", data)
  evaluated = data.replace(is_training=False, drop_remainder=False)
  checks.check_data("task.validation_data", evaluated)


def test_evaluation_without_a_full_batch_is_rejected(tmp_path):
  with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
    for _ in range(3):
      writer.write(b"\0" * 9)
  data = digits(tmp_path).replace(is_training=False, drop_remainder=True, global_batch_size=4)
  with pytest.raises(
    UserError, match=r"the 3 records fill no batch of task\.validation_data\.glob"
  ):
    checks.check_data("task.validation_data", data)
  checks.check_data("task.validation_data", data.replace(global_batch_size=3))


@pytest.mark.parametrize("target", ["train-0", "missing"])
def test_links_that_lead_nowhere_are_named(target, tmp_path):
  (tmp_path / "train-0").symlink_to(tmp_path / target)
  with pytest.raises(UserError, match="train-0 is a link that leads to no file"):
    checks.check_data("task.train_data", digits(tmp_path))


@pytest.mark.parametrize(
  ("address", "problem"),
  [
    ("grpc://localhost:1", "cannot be reached"),
    ("grpc://localhost:99999", "cannot be reached"),
    ("localhost", "expected an address such as grpc://host:5050"),
  ],
)
def test_data_service_that_does_not_answer_is_named(address, problem, tmp_path):
  data = digits(tmp_path).replace(enable_tf_data_service=True, tf_data_service_address=address)
  message = rf"task\.train_data\.tf_data_service_address={address}: .*{problem}"
  with pytest.raises(UserError, match=message):
    checks.check_data("task.train_data", data)


def test_missing_shard_is_a_warning(tmp_path, caplog):
  with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00002.tfrecord")) as writer:
    writer.write(tf.train.Example().SerializeToString())
  (tmp_path / "dataset.json").write_text('{"train": {"shards": 2}}')
  logging.set_verbosity(logging.WARNING)
  checks.check_data("task.train_data", digits(tmp_path))
  assert "has 1 shards of split train; dataset.json lists 2" in caplog.text


@pytest.mark.parametrize(
  ("content", "error"),
  [
    (b"one\nzero\n", "names the class of label 0 'zero', and .* names it 'one'"),
    (b"", "is empty: expected one class name per line"),
    (bytes(range(128, 256)), "labels.txt"),
  ],
  ids=["reordered", "empty", "binary"],
)
def test_label_file_that_does_not_fit_the_records_is_rejected(tmp_path, content, error):
  feature = {
    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
    "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"zero"])),
  }
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
    writer.write(example.SerializeToString())
  checks.check_data("task.train_data", digits(tmp_path))
  (tmp_path / "labels.txt").write_bytes(content)
  with pytest.raises(UserError, match=error):
    checks.check_data("task.train_data", digits(tmp_path))


def test_endless_records_and_bombs_are_named_before_the_run(tmp_path):
  features = {"image/encoded": [image_bombs.png(23_000, 23_000)]}
  path = tmp_path / "train-0"
  with tf.io.TFRecordWriter(str(path)) as writer:
    for name, images in (("image/none", [b""]), *features.items()):
      value = tf.train.Feature(bytes_list=tf.train.BytesList(value=images))
      example = tf.train.Example(features=tf.train.Features(feature={name: value}))
      writer.write(example.SerializeToString())
  override = f"task.train_data.input_path={path}"
  for name in ("sasa_resnet_digits", "retinanet_sasa_scenes"):
    data = experiment.load_experiment(name, params_override=override).task.train_data
    with pytest.raises(UserError, match=rf"{path}, record 1 .* decompression bomb: .* Write the"):
      checks.check_data("task.train_data", data)
  with path.open("ab") as file:
    file.write(bytes.fromhex("0000000000000010c4234e8e") + b"abc")  # a length of 2**60
  with pytest.raises(UserError, match=rf"{path}, record 2 .* has a length of 1,152,921,504,606,"):
    checks.check_data("task.train_data", data)
