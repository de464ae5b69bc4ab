"""Checks of the data, the model directory and the configuration before a run starts."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from official.core import config_definitions
from official.vision.configs.retinanet import DataConfig as DetectionData

from sasa_tf.data.integrity import raw_records, shard_count
from sasa_tf.data.integrity.foreign_files import foreign_kind
from sasa_tf.data.integrity.record_boxes import check_boxes
from sasa_tf.data.integrity.record_headers import find_endless_record
from sasa_tf.data.integrity.record_image_ids import check_image_ids
from sasa_tf.data.integrity.record_images import check_image
from sasa_tf.data.integrity.record_labels import check_label_range, check_labels
from sasa_tf.data.integrity.record_sample import sample_records
from sasa_tf.data.labels import read_labels
from sasa_tf.data.tfrecord.output_directory import COMMIT_FILE, LABELS_FILE
from sasa_tf.errors import UserError
from sasa_tf.outputs.run_log import RUN_LOG_FILE
from sasa_tf.tasks.init_checkpoint import find_init_checkpoint
from sasa_tf.training.config_validation import memory
from sasa_tf.training.input_files import (
  COMPRESSIONS,
  find_input_files,
  is_files,
  match_patterns,
)
from sasa_tf.training.model_differences import (
  PARAMS_FILE,
  differences,
  load_model_config,
  load_optimizer_config,
  with_defaults,
  without_tuples,
)
from sasa_tf.training.resilience import checkpoints

# Files whose first bytes are read before each run.
_MAX_SNIFFED = 256
_MAX_SAMPLED_RECORDS = 64
# For the lengths of all records: 100,000 records or more, unless the disk is slow.
_MAX_HEADER_SECONDS = 0.2
_CONNECT_SECONDS = 10
# Subcommands of make_tfrecords for each task.
_CLASSIFICATION_CONVERTERS = "digits for scikit-learn's digits, image_folder for a folder of images"
_DETECTION_CONVERTERS = (
  "scenes for synthetic scenes, voc for XML files like Pascal VOC's, coco for an instances file "
  "like COCO's"
)


def check_data(name: str, data: config_definitions.DataConfig) -> None:
  """Checks that the data is configured exactly once, exists and is not empty.

  Args:
    name: name of the field, "task.train_data" or "task.validation_data".
    data: value of the field.

  Raises:
    UserError: a check fails.
  """
  if bool(data.input_path) == bool(data.tfds_name):
    raise UserError(
      f"{name} needs exactly one of input_path (TFRecord files) and tfds_name (TensorFlow "
      f"Datasets); received input_path={data.input_path!r} and tfds_name={data.tfds_name!r}. Set "
      "the other to ''."
    )
  if data.enable_tf_data_service:
    _check_data_service(f"{name}.tf_data_service_address", data.tf_data_service_address)
  if is_files(data) and data.file_type in COMPRESSIONS:
    is_detection = isinstance(data, DetectionData)
    converters = _DETECTION_CONVERTERS if is_detection else _CLASSIFICATION_CONVERTERS
    _check_tfrecords(f"{name}.input_path", data, converters)
    _check_shuffle_buffer(name, data)
    _check_batch_is_filled(name, data)
    read_class_names(data)
    files, compression = find_input_files(data.input_path), COMPRESSIONS[data.file_type]
    image_key = "image/encoded" if is_detection else data.image_field_key
    label_key = "image/object/class/label" if is_detection else data.label_field_key
    for record in sample_records(files, compression):
      check_image(record, image_key)
      check_label_range(record, label_key)
    if is_detection:
      check_boxes(files, compression)


def check_annotations(task: config_definitions.TaskConfig) -> None:
  """Raises `UserError` if `task.annotation_file` is not of the validation data."""
  data, annotation_file = task.validation_data, getattr(task, "annotation_file", None)
  if annotation_file and is_files(data) and data.file_type in COMPRESSIONS:
    files = find_input_files(data.input_path)
    check_image_ids(annotation_file, files, COMPRESSIONS[data.file_type])


def _check_tfrecords(name: str, data: config_definitions.DataConfig, converters: str) -> None:
  input_path, files = data.input_path, []
  for pattern, matched in match_patterns(input_path).items():
    if not matched:
      raise UserError(
        f"{name}={pattern}: no file matches (looked from {os.getcwd()}).{_not_expanded(pattern)} "
        "Write TFRecords with "
        f"`python -m sasa_tf.bin.make_tfrecords` ({converters}), or set the path."
      )
    for file in matched:
      if tf.io.gfile.isdir(file):
        # A pattern such as data/* also matches directories among the files.
        beside = os.path.dirname(file) if len(matched) > 1 else file
        raise UserError(
          f"{name}={pattern}: {file} is a directory; expected TFRecord files. Set the path to "
          f"{os.path.join(beside, 'train-*')}, for example."
        )
      if os.path.islink(file) and not os.path.exists(file):
        raise UserError(
          f"{name}={pattern}: {file} is a link that leads to no file. Correct or remove it."
        )
      if os.path.exists(file) and not os.path.isfile(file):
        raise UserError(
          f"{name}={pattern}: {file} is a pipe or a device; expected TFRecord files, which are "
          "read again in every epoch. Copy the records to a file."
        )
    files.extend(matched)
  for directory in dict.fromkeys(map(os.path.dirname, files)):
    if tf.io.gfile.exists(os.path.join(directory, COMMIT_FILE)):
      raise UserError(
        f"{name}={input_path}: a conversion to {directory} is replacing the files, or was killed. "
        "Wait until it ends, or run `python -m sasa_tf.bin.make_tfrecords` again, which completes "
        "it."
      )
    for problem in shard_count.find_problems(directory, files):
      logging.warning("%s: %s", name, problem)
  for file in files[:: -(-len(files) // _MAX_SNIFFED) or 1]:
    if kind := foreign_kind(file, COMPRESSIONS[data.file_type]):
      raise UserError(
        f"{name}={input_path}: {file} is {kind}; expected TFRecord files. Write them with `python "
        f"-m sasa_tf.bin.make_tfrecords` ({converters}), or set a path that only matches them."
      )
  if not COMPRESSIONS[data.file_type]:
    _check_record_lengths(name, files)
  if all(raw_records.is_empty(file, COMPRESSIONS[data.file_type]) for file in files):
    raise UserError(
      f"{name}={input_path}: the {len(files)} files have no records. Write them again."
    )


def _check_record_lengths(name: str, files: Sequence[str]) -> None:
  """Raises `UserError` for records of absurd length, at which TensorFlow crashes."""
  end = time.monotonic() + _MAX_HEADER_SECONDS
  for file in files:
    if (left := end - time.monotonic()) < 0:
      return
    if found := find_endless_record(file, left):
      raise UserError(
        f"{name}: {file}, record {found[0]} (from 0) has a length of {found[1]:,} bytes, so the "
        "file is corrupt. Write the TFRecords again."
      )


def _not_expanded(pattern: str) -> str:
  """Returns a sentence about what a shell would have expanded, or ""."""
  expanded = os.path.expandvars(os.path.expanduser(pattern))
  if expanded == pattern:
    return ""
  return f" Only a shell expands ~ and $: write {expanded}."


def _check_data_service(name: str, address: str) -> None:
  """Raises `UserError` if nothing answers at the address; TensorFlow would wait for an hour."""
  found = re.fullmatch(r"grpc://(.+):(\d+)", address)
  if not found:
    raise UserError(f"{name}={address}: expected an address such as grpc://host:5050.")
  try:
    socket.create_connection((found[1].strip("[]"), int(found[2])), _CONNECT_SECONDS).close()
  except (OSError, OverflowError) as error:
    raise UserError(
      f"{name}={address}: the dispatcher of the tf.data service cannot be reached ({error}). Start "
      "it, or set enable_tf_data_service to false."
    ) from error


def _check_shuffle_buffer(name: str, data: config_definitions.DataConfig) -> None:
  """Raises `UserError` if the records of a full shuffle buffer do not fit into the memory.

  Training data is repeated before it is shuffled, so that it fills a buffer of any size.
  """
  if not data.is_training:
    return
  file = find_input_files(data.input_path)[0]
  records = raw_records.read(file, COMPRESSIONS[data.file_type])
  sizes = [len(record) for record in itertools.islice(records, _MAX_SAMPLED_RECORDS)]
  mean = sum(sizes) / max(1, len(sizes))
  available = memory.available_memory()
  if data.shuffle_buffer_size * mean > available:
    raise UserError(
      f"{name}.shuffle_buffer_size={data.shuffle_buffer_size}: expected a buffer that fits into "
      f"the memory. Its records, of {mean:,.0f} bytes each, need "
      f"{memory.format_gib(data.shuffle_buffer_size * mean)}, but this machine has "
      f"{memory.format_gib(available)}. Use at most {int(available / mean / 2):,}."
    )


def _check_batch_is_filled(name: str, data: config_definitions.DataConfig) -> None:
  """Raises `UserError` if an evaluation would drop its only batch, which is not full."""
  if data.is_training or not data.drop_remainder:
    return
  compression = COMPRESSIONS[data.file_type]
  files = find_input_files(data.input_path)
  records = itertools.chain.from_iterable(raw_records.read(file, compression) for file in files)
  count = sum(1 for _ in itertools.islice(records, data.global_batch_size))
  if count < data.global_batch_size:
    raise UserError(
      f"{name}.drop_remainder=true: the {count} records fill no batch of "
      f"{name}.global_batch_size={data.global_batch_size}, so that nothing would be evaluated. Set "
      "drop_remainder to false, or use a smaller batch."
    )


def check_model_dir(
  model_dir: str,
  params: config_definitions.ExperimentConfig,
  *,
  train: bool,
  write: bool | None = None,
) -> None:
  """Checks that the directory is writable and that its checkpoint is of the same model.

  Args:
    model_dir: directory of the run.
    params: configuration of the run.
    train: whether the run trains. An evaluation needs a checkpoint instead.
    write: whether this process writes to the directory; `train` by default.

  Raises:
    UserError: a check fails.
  """
  if "://" in model_dir:
    # Raises the error of a file system that cannot be reached; the search below ignores it.
    tf.io.gfile.exists(model_dir)
  if train if write is None else write:
    _check_entries(model_dir, params)
  checkpoint = checkpoints.latest_valid(model_dir)
  if train if write is None else write:
    _check_writable(model_dir)
  if not (train if write is None else write) and not checkpoints.is_state_readable(model_dir):
    raise UserError(
      f"{os.path.join(model_dir, checkpoints.STATE_FILE)} is corrupt, and an evaluation writes "
      "nothing there. Remove the file: the latest valid checkpoint is then used."
    )
  if not train and checkpoint is None:
    raise UserError(
      f"--model_dir={model_dir} holds no checkpoint to evaluate. Train first, or use the "
      "directory of a training."
    )
  if checkpoint is None:
    return
  saved = os.path.join(model_dir, PARAMS_FILE)
  if not tf.io.gfile.exists(saved):
    raise UserError(
      f"--model_dir={model_dir} holds the checkpoint {checkpoint}, but no params.yaml with the "
      "configuration of its model. Use another directory, or restore params.yaml."
    )
  saved_model = load_model_config(saved)
  model = params.task.model
  changes = _describe(with_defaults(saved_model, model), without_tuples(model.as_dict()))
  if changes:
    raise UserError(
      f"--model_dir={model_dir} holds a checkpoint of another model ({checkpoint}). It differs "
      f"in {'; '.join(changes[:5])}. Use an empty directory, or the configuration of that run "
      f"({saved})."
    )
  _check_saved_optimizer(params, saved, checkpoint, train=train)


def _check_saved_optimizer(
  params: config_definitions.ExperimentConfig, saved: str, checkpoint: str, *, train: bool
) -> None:
  """Raises `UserError` if the checkpoint lacks the state of the configured optimizer.

  TensorFlow would keep the initial state, also for averaged weights, which are random then. An
  evaluation reads only the averaged weights.
  """
  before, now = load_optimizer_config(saved), params.trainer.optimizer_config.as_dict()
  key, changes = "trainer.optimizer_config", []
  kind = before.get("optimizer", {}).get("type") if train else None
  if kind is not None and kind != now["optimizer"]["type"]:
    changes.append(f"{key}.optimizer.type: {kind!r} before, {now['optimizer']['type']!r} now")
  if "ema" in before and bool(before["ema"]) != bool(now["ema"]) and (train or now["ema"]):
    states = ("set", "null") if before["ema"] else ("null", "set")
    changes.append(f"{key}.ema: {states[0]} before, {states[1]} now")
  if changes:
    raise UserError(
      f"{checkpoint} holds the state of another optimizer ({saved}). It differs in "
      f"{'; '.join(changes)}. Use the optimizer of that run, or start from its weights in another "
      f"--model_dir with task.init_checkpoint={checkpoint}."
    )


def check_precision(params: config_definitions.ExperimentConfig) -> None:
  """Raises a `UserError` if Model Garden cannot train with the configured precision."""
  if params.runtime.mixed_precision_dtype == "float16" and params.trainer.optimizer_config.ema:
    raise UserError(
      "runtime.mixed_precision_dtype=float16 together with trainer.optimizer_config.ema fails in "
      "Model Garden: its loss scaling does not support the averaging optimizer. Use bfloat16, or "
      "set trainer.optimizer_config.ema to null."
    )


def resolve_init_checkpoint(task: config_definitions.TaskConfig) -> config_definitions.TaskConfig:
  """Returns the task with the checkpoint of `init_checkpoint`, after checks.

  The checkpoint must exist and be valid. If params.yaml of its training is in its directory or in
  the parent, the backbones must be equal and, unless only parts are initialized, the classes. Other
  differences raise an error when the model has been built.

  Args:
    task: task configuration; `init_checkpoint` may be None.

  Raises:
    UserError: a check fails.
  """
  path = task.init_checkpoint
  if not path:
    return task
  if tf.io.gfile.isdir(path):
    checkpoint = checkpoints.latest_valid(path) or find_init_checkpoint(path)
  else:
    checkpoint = find_init_checkpoint(path)
    problem = checkpoints.find_corruption(checkpoint)
    if problem:
      raise UserError(f"task.init_checkpoint={path} is corrupt: {problem}. Use another one.")
  directory = os.path.dirname(checkpoint)
  for folder in (directory, os.path.dirname(directory)):
    saved = os.path.join(folder, PARAMS_FILE)
    if tf.io.gfile.exists(saved):
      _check_saved_model(task, load_model_config(saved), saved)
      break
  return task.replace(init_checkpoint=checkpoint)


def _check_saved_model(
  task: config_definitions.TaskConfig, saved: Mapping[str, Any], source: str
) -> None:
  """Raises a `UserError` if the weights of a saved model do not fit this one."""
  model = without_tuples(task.model.as_dict())
  completed = with_defaults(saved, task.model)
  changes = _describe(_backbone(completed), _backbone(model), "task.model.backbone")
  if changes:
    raise UserError(
      f"task.init_checkpoint={task.init_checkpoint} is of another backbone ({source}). It differs "
      f"in {'; '.join(changes[:5])}. Configure the same backbone, or use another checkpoint."
    )
  classes, own_classes = saved.get("num_classes"), model.get("num_classes")
  if task.init_checkpoint_modules == "all" and classes != own_classes:
    raise UserError(
      f"task.init_checkpoint={task.init_checkpoint} is of a model with other classes ({source}): "
      f"task.model.num_classes is {classes} in the checkpoint, {own_classes} in this run. Set "
      "task.init_checkpoint_modules=backbone to initialize the backbone alone."
    )


def _backbone(model: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the type and the settings of the backbone of a model configuration."""
  kind = model["backbone"]["type"]
  settings = dict(model["backbone"][kind])
  settings.pop("implementation", None)  # does not affect the weights
  return {"type": kind, kind: settings}


def _describe(saved: Any, current: Any, path: str = "task.model") -> list[str]:
  """Returns a description of every setting that differs."""
  return [
    f"{key}: {before!r} in the checkpoint, {now!r} in this run"
    for key, before, now in differences(saved, current, path)
  ]


def _check_entries(model_dir: str, params: config_definitions.ExperimentConfig) -> None:
  """Raises a `UserError` if a name that the training writes is of another kind of file."""
  best = params.trainer.best_checkpoint_export_subdir
  directories = ("train", best, params.trainer.validation_summary_subdir)
  for name in filter(None, directories):
    path = os.path.join(model_dir, name)
    if os.path.islink(path) and not os.path.exists(path):
      raise UserError(
        f"{path} is a link that leads to no directory, which the training needs. Correct or "
        "remove it."
      )
    if os.path.exists(path) and not os.path.isdir(path):
      raise UserError(
        f"{path} is a file; expected a directory, which the training writes. Move it, or choose "
        "another --model_dir."
      )
  files = [checkpoints.STATE_FILE, PARAMS_FILE, RUN_LOG_FILE, LABELS_FILE, "run.json"]
  if best:
    files += [os.path.join(best, name) for name in (checkpoints.STATE_FILE, "info.json")]
  for name in files:
    path = os.path.join(model_dir, name)
    if os.path.islink(path):
      raise UserError(
        f"{path} is a link to {os.path.realpath(path)}, which the training would overwrite. Remove "
        "the link or put a copy of the file there, or choose another --model_dir."
      )
    if os.path.exists(path) and not os.path.isfile(path):
      kind = "a directory" if os.path.isdir(path) else "a pipe or a device"
      raise UserError(
        f"{path} is {kind}; expected a file, which the training writes. Move it, or choose another "
        "--model_dir."
      )


def _check_writable(model_dir: str) -> None:
  try:
    tf.io.gfile.makedirs(model_dir)
    probe = os.path.join(model_dir, f".write_test.{os.getpid()}")
    with tf.io.gfile.GFile(probe, "w") as file:
      file.write("")
    tf.io.gfile.remove(probe)
  except (tf.errors.OpError, OSError) as error:
    raise UserError(
      f"--model_dir={model_dir} cannot be written: {getattr(error, 'message', error)}. Choose a "
      "writable directory."
    ) from error


def read_class_names(data: config_definitions.DataConfig) -> tuple[str, ...] | None:
  """Returns the class names that `make_tfrecords` wrote next to the TFRecords, or None.

  Args:
    data: data configuration.

  Raises:
    UserError: the file cannot be read, or does not belong to the records.
  """
  path = find_label_file(data.input_path)
  if path is None:
    return None
  names = read_labels(path)
  if is_files(data) and data.file_type in COMPRESSIONS:
    files = find_input_files(data.input_path)
    check_labels(str(path), names, files, COMPRESSIONS[data.file_type])
  return names


def find_label_file(input_path: Any) -> pathlib.Path | None:
  """Returns the label file that `make_tfrecords` wrote next to these TFRecords, if any."""
  if not input_path or not isinstance(input_path, (str, list, tuple)):
    return None
  # Without files, the first pattern shows where they were.
  names = find_input_files(input_path) or list(match_patterns(input_path))
  labels = pathlib.Path(names[0]).parent / LABELS_FILE
  return labels if os.path.isfile(labels) else None  # False for a path that is too long
