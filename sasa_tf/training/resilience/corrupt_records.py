"""Skips corrupt records before a run, or finds the one that ended it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from official.core import config_definitions

from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.data.integrity import corrupt_records
from sasa_tf.data.integrity.record_validation import DETECTION_SCHEMA, RecordSchema
from sasa_tf.errors import UserError
from sasa_tf.training.input_files import COMPRESSIONS, find_input_files, is_files, literal_paths

# Parts of the messages of errors from the input pipeline.
_PIPELINE = ("IteratorGetNext", "Iterator::Root")


def skip_corrupt_records(
  task: config_definitions.TaskConfig, mode: str, *, limit: int, scratch: str
) -> config_definitions.TaskConfig:
  """Returns the task with datasets that have no corrupt records.

  Args:
    task: task configuration of the experiment.
    mode: Model Garden's mode, which determines the datasets that are read.
    limit: maximum number of records to skip in each dataset; 0 disables the check.
    scratch: directory for copies of files with corrupt records.

  Raises:
    UserError: a dataset has more corrupt records, or does not consist of TFRecord files.
  """
  if not limit:
    return task
  changes = {}
  for name, data in _datasets(task, mode):
    if not is_files(data):
      raise UserError(
        f"--max_corrupt_records is for TFRecord files; task.{name}.input_path is "
        f"{data.input_path!r}. Omit the flag."
      )
    files = corrupt_records.skip_corrupt_records(
      find_input_files(data.input_path),
      COMPRESSIONS[data.file_type],
      _record_schema(task),
      limit=limit,
      scratch=os.path.join(scratch, name),
    )
    changes[name] = data.replace(input_path=literal_paths(files))
  return task.replace(**changes)


def find_cause(message: str, task: config_definitions.TaskConfig, mode: str) -> UserError | None:
  """Returns an error that names the corrupt record behind an error of the input pipeline.

  Reads the datasets to find the record, because TensorFlow does not name it.

  Args:
    message: message of the error that ended the run.
    task: task configuration of the experiment.
    mode: Model Garden's mode.

  Returns:
    The error, or None if no corrupt record caused it.
  """
  if not any(part in message for part in _PIPELINE):
    return None
  for name, data in _datasets(task, mode):
    if not is_files(data):
      continue
    files = find_input_files(data.input_path)
    compression = COMPRESSIONS[data.file_type]
    found = corrupt_records.find_corruption(files, compression, _record_schema(task))
    if found is not None:
      corruption, can_be_skipped = found
      skip = (
        ", or set --max_corrupt_records=N to skip up to N such records."
        if can_be_skipped
        else " without this image. --max_corrupt_records does not skip it, because it decodes no "
        "JPEG images."
      )
      return UserError(
        f"task.{name} has a corrupt record: {corruption}. Write the TFRecords again{skip}"
        f"{_check_keys(task, corruption.problem)}"
      )
  return None


def _check_keys(task: config_definitions.TaskConfig, problem: str) -> str:
  """Returns a sentence about the configured features that a problem of a record names, or ""."""
  fields = {
    field: getattr(task.train_data, field, None) for field in ("image_field_key", "label_field_key")
  }
  named = [
    f"task.train_data.{field}={key}"
    for field, key in fields.items()
    if key and key in problem and key != getattr(type(task.train_data)(), field)
  ]
  return f" Check {' and '.join(named)}." if named else ""


def _datasets(
  task: config_definitions.TaskConfig, mode: str
) -> Iterator[tuple[str, config_definitions.DataConfig]]:
  for part, name in (("train", "train_data"), ("eval", "validation_data")):
    if part in mode:
      yield name, getattr(task, name)


def _record_schema(task: config_definitions.TaskConfig) -> RecordSchema:
  if isinstance(task, RetinaNetTask):
    return DETECTION_SCHEMA
  data = task.train_data
  return RecordSchema(
    image_key=data.image_field_key,
    label_key=None if data.is_multilabel else data.label_field_key,
  )
