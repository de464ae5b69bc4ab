"""What to tell when a run ends because of its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.tasks.label_errors import LABEL_ERROR, is_missing
from sasa_tf.training.resilience import corrupt_records

# TensorFlow's words for a string that should be a number, as ids of images should.
_NO_NUMBER = "StringToNumberOp could not correctly convert string"


@contextlib.contextmanager
def explained(task: config_definitions.TaskConfig, mode: str) -> Iterator[None]:
  """Raises a `UserError` for an error of TensorFlow's whose cause is in the data; others pass.

  Args:
    task: of the experiment.
    mode: Model Garden's.
  """
  try:
    yield
  except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
    if LABEL_ERROR in error.message and not is_missing(error.message):
      raise UserError(_of_label(error.message, task)) from error
    if _NO_NUMBER in error.message:
      raise UserError(_of_source_id(error.message)) from error
    of_record = corrupt_records.explain(error, task, mode)
    if of_record is None:
      raise
    raise of_record from error


def _of_label(message: str, task: config_definitions.TaskConfig) -> str:
  """The assertion's message down to the values it saw."""
  start = message.index(LABEL_ERROR)
  seen = " ".join(message[start:].split("[[", maxsplit=1)[0].split())
  told = f"{seen}. task.model.num_classes is {task.model.num_classes}"
  if isinstance(task, RetinaNetTask):
    return (
      f"{told}, background counted as class 0; set it to 1 more than the highest class of the data "
      "(91 for COCO, also through TFDS), or correct the data."
    )
  return (
    f"{told}; set it to the number of classes of the data, or correct the data (TFRecords of "
    "ImageNet from Model Garden's script count from 1 and need 1001)."
  )


def _of_source_id(message: str) -> str:
  start = message.index(_NO_NUMBER)
  return (
    f"an image's id is no number ({message[start:].splitlines()[0]}). COCO's evaluation wants "
    "image/source_id to be a number written as a string; write the TFRecords again, or set "
    "task.train_data.decoder.simple_decoder.regenerate_source_id and that of task.validation_data."
  )
