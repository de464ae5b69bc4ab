"""Encoded images of the training's or the validation's data, for exports."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from official.core import config_definitions, task_factory
from official.vision.ops import preprocess_ops

from sasa_tf.data.images.pixel_limit import bomb_problem
from sasa_tf.data.integrity import raw_records
from sasa_tf.training.input_files import COMPRESSIONS, find_input_files, is_files

# Reading data that is not there, or not that of the task.
_READ_ERRORS = (ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, ValueError)


class Example(NamedTuple):
  """An image and its class.

  Attributes:
    image: encoded.
    label: of a classifier; None for a detector.
  """

  image: bytes
  label: int | None


def read_examples(
  params: config_definitions.ExperimentConfig, name: str, count: int
) -> list[Example]:
  """Returns some examples of the data, from all of its files; [] if the data cannot be read.

  Args:
    params: configuration of the experiment.
    name: "train_data" or "validation_data".
    count: maximum number of examples.
  """
  data = getattr(params.task, name)
  try:
    if is_files(data) and data.file_type in COMPRESSIONS:
      return list(itertools.islice(_of_records(data), count))
    if data.tfds_name:
      return list(itertools.islice(_of_pipeline(params, data), count))
  except (*_READ_ERRORS, tf.errors.OpError):
    pass
  return []


def _of_records(data: Any) -> Iterator[Example]:
  """Yields the examples of TFRecord files, one of each file at a time."""
  image_key = getattr(data, "image_field_key", "image/encoded")
  label_key = getattr(data, "label_field_key", None)
  compression = COMPRESSIONS[data.file_type]
  files = [
    raw_records.read(file, compression) for file in sorted(find_input_files(data.input_path))
  ]
  for records in itertools.zip_longest(*files):
    for example in filter(None, map(raw_records.parse, filter(None, records))):
      images = example.features.feature[image_key].bytes_list.value
      labels = example.features.feature[label_key].int64_list.value if label_key else ()
      if images and not bomb_problem(images[0]):
        yield Example(images[0], int(labels[0]) if len(labels) == 1 else None)


def _of_pipeline(params: config_definitions.ExperimentConfig, data: Any) -> Iterator[Example]:
  """Yields the examples of TensorFlow Datasets, in the size of the model's input."""
  data = data.replace(is_training=False, global_batch_size=1, drop_remainder=False)
  for images, labels in task_factory.get_task(params.task).build_inputs(data):
    decoded = images[0] * preprocess_ops.STDDEV_RGB + preprocess_ops.MEAN_RGB
    image = tf.cast(tf.clip_by_value(tf.round(decoded), 0, 255), tf.uint8)
    is_class = isinstance(labels, tf.Tensor) and labels.shape.rank == 1
    yield Example(tf.io.encode_png(image).numpy(), int(labels[0]) if is_class else None)
