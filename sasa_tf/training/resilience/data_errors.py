"""Translates TensorFlow errors that the data caused into messages that say how to fix it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.data.integrity.parse_errors import PARSE_ERRORS, message_of
from sasa_tf.errors import UserError, WorkerLostError
from sasa_tf.tasks.label_errors import LABEL_ERROR, is_missing_label
from sasa_tf.training.resilience import corrupt_records

_VALUES = re.compile(r"\[(-?\d[-\d .]*)\]")
# TensorFlow's message for a string that is not a number. Image ids must be numbers.
_NOT_A_NUMBER = "StringToNumberOp could not correctly convert string"
# TensorFlow's message for records without a feature that Model Garden's decoder of boxes reads.
_MISSING_FEATURE = re.compile(
  r"Feature: (?P<name>\S+) \(data type: \w+\) is required but could not"
)


# Part of TensorFlow's message when a dispatcher of the tf.data service has lost its state.
_LOST_SERVICE = "Unknown iteration client id"


@contextlib.contextmanager
def translate_data_errors(task: config_definitions.TaskConfig, mode: str) -> Iterator[None]:
  """Raises a `UserError` instead of a TensorFlow error that the data caused.

  Other errors are not changed.

  Args:
    task: task configuration of the experiment.
    mode: Model Garden's mode.

  Raises:
    WorkerLostError: the dispatcher of a tf.data service was restarted without its state.
  """
  try:
    yield
  except tf.errors.NotFoundError as error:
    if _LOST_SERVICE not in str(error.message):
      raise
    raise WorkerLostError(
      f"the dispatcher of the tf.data service at {task.train_data.tf_data_service_address} was "
      "restarted and does not know this training. To resume from the last checkpoint, rerun the "
      "same command. A dispatcher with fault_tolerant_mode and a work_dir knows it."
    ) from error
  except tf.errors.OutOfRangeError as error:
    if "train" not in mode or "IteratorGetNext" not in str(error.message):
      raise
    raise UserError(
      "task.train_data ended before the last step, although it should repeat: no image is left "
      "after the configured filters. Check input_path, weights and tfds_split of task.train_data."
    ) from error
  except PARSE_ERRORS as error:
    message = message_of(error)
    if LABEL_ERROR in message and not is_missing_label(message):
      raise UserError(_label_message(message, task)) from error
    if _NOT_A_NUMBER in message:
      raise UserError(_source_id_message(message)) from error
    if found := _MISSING_FEATURE.search(message):
      raise UserError(_missing_feature_message(found["name"], task)) from error
    record_error = corrupt_records.find_cause(message, task, mode)
    if record_error is None and LABEL_ERROR in message:  # the label is not missing, but negative
      record_error = UserError(_label_message(message, task))
    if record_error is None:
      raise
    raise record_error from error


def _label_message(message: str, task: config_definitions.TaskConfig) -> str:
  # The assertion's message, its condition and the values that it received.
  start = message.index(LABEL_ERROR)
  text = " ".join(message[start:].split("[[", maxsplit=1)[0].split())
  expected = text.split("]", maxsplit=1)[0].strip().rstrip(".")
  values = _VALUES.findall(text)
  received = f"; received {values[0]}" if values else ""
  problem = f"{expected}{received}. task.model.num_classes is {task.model.num_classes}"
  if isinstance(task, RetinaNetTask):
    return (
      f"{problem}, background counted as class 0. Set it to 1 more than the highest class of the "
      "data (91 for COCO, also through TFDS), or correct the data."
    )
  return (
    f"{problem}. Set it to the number of classes of the data, or correct the data (TFRecords of "
    "ImageNet from Model Garden's script count from 1 and need 1001)."
  )


def _missing_feature_message(name: str, task: config_definitions.TaskConfig) -> str:
  kind = "detection" if isinstance(task, RetinaNetTask) else "classification"
  return (
    f"a record of task.train_data or task.validation_data has no feature {name}, which {kind} "
    "needs. Check that input_path is a data set of this task, or write the TFRecords again with "
    "`python -m sasa_tf.bin.make_tfrecords`."
  )


def _source_id_message(message: str) -> str:
  start = message.index(_NOT_A_NUMBER)
  return (
    f"an image id is not a number ({message[start:].splitlines()[0]}). The COCO evaluation expects "
    "image/source_id to be a number written as a string. Write the TFRecords again, or set "
    "task.train_data.decoder.simple_decoder.regenerate_source_id and the same of "
    "task.validation_data."
  )
