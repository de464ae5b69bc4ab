"""Corrupt records of a run's data sets: left out before it, named when they ended it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import tensorflow as tf
from official.core import config_definitions, input_reader

from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.data.integrity import corrupt_records
from sasa_tf.data.integrity.record_validation import DETECTION_SCHEMA, RecordSchema
from sasa_tf.errors import UserError

_COMPRESSIONS = {"tfrecord": "", "tfrecord_compressed": "GZIP"}
# In the messages of errors that come out of the input pipeline.
_PIPELINE = "IteratorGetNext"


def leave_out(
  task: config_definitions.TaskConfig, mode: str, *, limit: int, scratch: str
) -> config_definitions.TaskConfig:
  """Returns the task with data sets that have no corrupt records.

  Args:
    task: of the experiment.
    mode: Model Garden's, which says which data sets there are.
    limit: how many records may be left out of each; 0 looks at nothing.
    scratch: directory for copies of files with corrupt records.

  Raises:
    UserError: there are more, or a data set is not of TFRecord files.
  """
  if not limit:
    return task
  changes = {}
  for name, data in _data_sets(task, mode):
    if not isinstance(data.input_path, (str, list, tuple)) or not data.input_path:
      raise UserError(
        f"--max_corrupt_records is for TFRecord files; task.{name}.input_path is "
        f"{data.input_path!r}. Leave the flag away."
      )
    files = corrupt_records.skip_corrupt_records(
      input_reader.match_files(data.input_path),
      _COMPRESSIONS[data.file_type],
      _expected(task),
      limit=limit,
      scratch=os.path.join(scratch, name),
    )
    changes[name] = data.replace(input_path=files)
  return task.replace(**changes)


def explain(
  error: tf.errors.OpError, task: config_definitions.TaskConfig, mode: str
) -> UserError | None:
  """Returns what to tell of an error of the input pipeline, None if no record is the cause.

  Looks through the data sets for the record, as TensorFlow does not name it.

  Args:
    error: that ended the run.
    task: of the experiment.
    mode: Model Garden's.
  """
  if _PIPELINE not in error.message:
    return None
  for name, data in _data_sets(task, mode):
    if not isinstance(data.input_path, (str, list, tuple)) or not data.input_path:
      continue
    files = input_reader.match_files(data.input_path)
    damage = corrupt_records.find_corruption(files, _COMPRESSIONS[data.file_type], _expected(task))
    if damage is not None:
      return UserError(
        f"task.{name} has a corrupt record: {damage}. Write the TFRecords again, or leave such "
        "records out, up to a number of them, with --max_corrupt_records=N."
      )
  return None


def _data_sets(
  task: config_definitions.TaskConfig, mode: str
) -> Iterator[tuple[str, config_definitions.DataConfig]]:
  for part, name in (("train", "train_data"), ("eval", "validation_data")):
    if part in mode:
      yield name, getattr(task, name)


def _expected(task: config_definitions.TaskConfig) -> RecordSchema:
  if isinstance(task, RetinaNetTask):
    return DETECTION_SCHEMA
  data = task.train_data
  return RecordSchema(
    image_key=data.image_field_key,
    label_key=None if data.is_multilabel else data.label_field_key,
  )
