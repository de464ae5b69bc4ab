"""Writing one TFRecord file."""

import collections
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.data.detection.boxes import CheckedImage, Problem
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.examples import EncodedExample
from sasa_tf.data.tfrecord.shard_report import ShardProgress, ShardResult

_SECONDS_BETWEEN_REPORTS = 0.1


def write_shard(
  path: str | os.PathLike,
  items: Sequence[Any],
  encode: Callable[[Any], EncodedExample],
  strict: bool,
  report: Callable[[ShardProgress], None],
) -> ShardResult:
  """Writes one shard without the items that `encode` finds broken.

  Args:
    path: the file to write.
    items: its items, in order.
    encode: makes an item's example, or raises BrokenImageError.
    strict: whether a broken item, or a problem of its annotations, is fatal.
    report: receives the progress, several times a second.

  Returns:
    What was written and what was skipped.

  Raises:
    DatasetError: the file cannot be written, or an item is broken or has a problem and `strict` is
      set.
  """
  report(ShardProgress(0, []))
  formats: collections.Counter[str] = collections.Counter()
  complaints: list[str] = []
  problems: list[Problem] = []
  images: list[CheckedImage] = []
  finished, new_complaints, last_report = 0, [], time.monotonic()
  try:
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
      for item in items:
        try:
          example = encode(item)
          if strict and example.problems:
            raise example.problems[0].as_error()
          writer.write(example.serialized)
          formats[example.image_format] += 1
          problems += example.problems
          images += [example.image] if example.image else []
        except BrokenImageError as error:
          if strict:
            raise DatasetError(f"{error}\nMend or remove it, or skip it: no --strict.") from error
          new_complaints.append(str(error))
        finished += 1
        if time.monotonic() - last_report > _SECONDS_BETWEEN_REPORTS:
          report(ShardProgress(finished, new_complaints))
          complaints += new_complaints
          finished, new_complaints, last_report = 0, [], time.monotonic()
  except tf.errors.OpError as error:
    raise DatasetError(f"cannot write a shard: {error.message}. Nothing is kept.") from error
  report(ShardProgress(finished, new_complaints))
  return ShardResult(dict(formats), complaints + new_complaints, problems, images)
