"""Records that can be read, but hold no image that can be decoded, or no label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

_RECORDS_AT_ONCE = 64
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


class Expected(NamedTuple):
  """What a record of a data set should hold.

  Attributes:
    image_key: feature of the encoded image.
    label_key: feature of the labels; None where there may be none.
    box_key: feature with a value for each label; None for one label and no boxes.
  """

  image_key: str = "image/encoded"
  label_key: str | None = "image/class/label"
  box_key: str | None = None


BOXES = Expected(label_key="image/object/class/label", box_key="image/object/bbox/xmin")


def unusable(
  records: tf.data.Dataset, expected: Expected, *, thorough: bool = False
) -> Iterator[tuple[int, str]]:
  """Yields number and problem of each record that cannot be used.

  Args:
    records: of serialized `tf.train.Example`s.
    expected: what they should hold.
    thorough: whether to decode every image. A JPEG file with its first and its last marker is
      otherwise taken for one; what is broken within, libjpeg mostly passes over.
  """
  try:
    suspects = list(_suspects(records, expected, thorough))
  except tf.errors.InvalidArgumentError:  # one of them is no example: look at each by itself
    suspects = enumerate(records.as_numpy_iterator())
  for number, record in suspects:
    problem = problem_of(record, expected)
    if problem:
      yield number, problem


def problem_of(record: bytes, expected: Expected) -> str | None:
  """Returns what is wrong with a serialized example, with the image's id, or None."""
  try:
    parsed = tf.io.parse_single_example(record, _features(expected))
  except tf.errors.InvalidArgumentError as error:
    return f"no example with the features expected: {error.message.splitlines()[0]}"
  name = (parsed["image/source_id"].numpy() or parsed["image/filename"].numpy()).decode()
  problem = _problem_of_image(parsed[expected.image_key].numpy(), expected) or _problem_of_labels(
    parsed, expected
  )
  return f"image {name!r}: {problem}" if problem and name else problem


def _problem_of_image(encoded: bytes, expected: Expected) -> str | None:
  if not encoded:
    return f"{expected.image_key} is missing or empty"
  try:
    tf.io.decode_image(encoded, channels=3, expand_animations=False)
  except tf.errors.InvalidArgumentError as error:
    return (
      f"{expected.image_key}, {len(encoded)} bytes that begin with {encoded[:8]!r}, is no image: "
      f"{error.message.splitlines()[0]}"
    )
  return None


def _problem_of_labels(parsed: dict[str, tf.Tensor], expected: Expected) -> str | None:
  if expected.label_key is None:
    return None
  labels = int(tf.size(parsed[expected.label_key]))
  if expected.box_key is not None:
    boxes = int(tf.size(parsed[expected.box_key]))
    return None if labels == boxes else f"{boxes} boxes, but {labels} {expected.label_key}"
  return None if labels == 1 else f"expected one {expected.label_key}; there are {labels}"


def _suspects(
  records: tf.data.Dataset, expected: Expected, thorough: bool
) -> Iterator[tuple[int, bytes]]:
  """Yields number and record of what does not look right at a glance, without Python for others."""

  def glance(batch):
    parsed = tf.io.parse_example(batch, _features(expected))
    encoded = parsed[expected.image_key]
    # Substrings must lie within.
    padded = tf.strings.join([encoded, tf.fill(tf.shape(encoded), b"\0" * len(_JPEG_START))])
    start = tf.strings.substr(padded, 0, len(_JPEG_START))
    padded = tf.strings.join([tf.fill(tf.shape(encoded), b"\0" * len(_JPEG_END)), encoded])
    end = tf.strings.substr(padded, -len(_JPEG_END), len(_JPEG_END))
    sound = (start == _JPEG_START) & (end == _JPEG_END)
    if expected.label_key is not None:
      labels = parsed[expected.label_key].row_lengths()
      wanted = parsed[expected.box_key].row_lengths() if expected.box_key else 1
      sound &= labels == tf.cast(wanted, labels.dtype)
    suspect = tf.ones_like(sound) if thorough else ~sound
    return tf.where(suspect)[:, 0], tf.boolean_mask(batch, suspect)

  batches = records.batch(_RECORDS_AT_ONCE).map(glance)
  for index, (numbers, suspects) in enumerate(batches.as_numpy_iterator()):
    for number, record in zip(numbers, suspects, strict=True):
      yield index * _RECORDS_AT_ONCE + int(number), record


def _features(expected: Expected) -> dict[str, object]:
  text = tf.io.FixedLenFeature([], tf.string, "")
  features = {expected.image_key: text, "image/source_id": text, "image/filename": text}
  if expected.label_key is not None:
    features[expected.label_key] = tf.io.RaggedFeature(tf.int64)
  if expected.box_key is not None:
    features[expected.box_key] = tf.io.RaggedFeature(tf.float32)
  return features
