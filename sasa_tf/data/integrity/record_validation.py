"""Validates readable records: a decodable image, and the expected labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.data.images.options import MAX_PIXELS, MIN_CLASSIFIED_SIDE
from sasa_tf.data.images.pixel_limit import bomb_problem
from sasa_tf.data.inputs.values import one_line
from sasa_tf.data.integrity.parse_errors import PARSE_ERRORS, first_line, message_of, reason

_BATCH_SIZE = 64
# A JPEG image of more bytes has no side of one pixel, unless its metadata is larger.
_MAX_ODD_BYTES = 1 << 16
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


class RecordSchema(NamedTuple):
  """Features that every record of a data set must have.

  Attributes:
    image_key: feature of the encoded image.
    label_key: feature of the labels; None if labels are optional.
    box_keys: features with one value per label; () for exactly one label and no boxes.
  """

  image_key: str = "image/encoded"
  label_key: str | None = "image/class/label"
  box_keys: tuple[str, ...] = ()


DETECTION_SCHEMA = RecordSchema(
  label_key="image/object/class/label",
  box_keys=tuple(f"image/object/bbox/{corner}" for corner in ("xmin", "ymin", "xmax", "ymax")),
)


def invalid_records(
  records: tf.data.Dataset, schema: RecordSchema, *, decode_all: bool = False
) -> Iterator[tuple[int, str]]:
  """Yields the index and the problem of each record that cannot be used.

  Args:
    records: data set of serialized `tf.train.Example`s.
    schema: the expected features.
    decode_all: whether to decode every image. By default, JPEG data with valid start and end
      markers and a header counts as valid, because libjpeg tolerates most errors in between.
  """
  try:
    suspects = list(_suspect_records(records, schema, decode_all))
  except PARSE_ERRORS:  # A record is not an example: check each separately.
    suspects = enumerate(records.as_numpy_iterator())
  for index, record in suspects:
    problem = validate_record(record, schema)
    if problem:
      yield index, problem


def validate_record(record: bytes, schema: RecordSchema) -> str | None:
  """Returns the problem of a serialized example, with the image's id, or None if it is valid."""
  try:
    parsed = tf.io.parse_single_example(record, _features(schema))
  except PARSE_ERRORS as error:
    problem = one_line(first_line(message_of(error)))[:300]
    return f"not an example with the expected features: {problem}"
  name = parsed["image/source_id"].numpy() or parsed["image/filename"].numpy()
  name = name.decode("utf-8", "backslashreplace")
  problem = _image_problem(parsed[schema.image_key].numpy(), schema) or _label_problem(
    parsed, schema
  )
  return f"image '{one_line(name)}': {problem}" if problem and name else problem


def _image_problem(encoded: bytes, schema: RecordSchema) -> str | None:
  if not encoded:
    return f"{schema.image_key} is missing or empty"
  if problem := bomb_problem(encoded):
    return f"{schema.image_key} is {problem}"
  try:
    image = tf.io.decode_image(encoded, channels=3)
  except tf.errors.InvalidArgumentError as error:
    return (
      f"{schema.image_key}, {len(encoded)} bytes that start with {encoded[:8]!r}, is not an image: "
      f"{reason(error)}"
    )
  if image.shape.rank != 3:
    return (
      f"{schema.image_key} is a GIF or WebP image, which is decoded as an animation; expected "
      "JPEG, PNG or BMP"
    )
  height, width = image.shape[:2]
  if not schema.box_keys and min(height, width) < MIN_CLASSIFIED_SIDE:
    return (
      f"{schema.image_key}, {width} x {height} pixels, is not an image that can be cropped: "
      f"expected at least {MIN_CLASSIFIED_SIDE} pixels per side"
    )
  return None


def _label_problem(parsed: dict[str, tf.Tensor], schema: RecordSchema) -> str | None:
  if schema.label_key is None:
    return None
  labels = int(tf.size(parsed[schema.label_key]))
  for key in schema.box_keys:
    boxes = int(tf.size(parsed[key]))
    if labels != boxes:
      return f"{boxes} {key}, but {labels} {schema.label_key}"
  if schema.box_keys:
    return None
  return None if labels == 1 else f"expected one {schema.label_key}; received {labels}"


def _suspect_records(
  records: tf.data.Dataset, schema: RecordSchema, decode_all: bool
) -> Iterator[tuple[int, bytes]]:
  """Yields the index and the record of what a quick check in the TensorFlow graph rejects."""

  def quick_check(batch):
    parsed = tf.io.parse_example(batch, _features(schema))
    encoded = parsed[schema.image_key]
    # tf.strings.substr requires positions inside the string.
    padded = tf.strings.join([encoded, tf.fill(tf.shape(encoded), b"\0" * len(_JPEG_START))])
    start = tf.strings.substr(padded, 0, len(_JPEG_START))
    padded = tf.strings.join([tf.fill(tf.shape(encoded), b"\0" * len(_JPEG_END)), encoded])
    end = tf.strings.substr(padded, -len(_JPEG_END), len(_JPEG_END))
    valid = (start == _JPEG_START) & (end == _JPEG_END)
    if schema.label_key is not None:
      labels = parsed[schema.label_key].row_lengths()
      for key in schema.box_keys:
        valid &= labels == tf.cast(parsed[key].row_lengths(), labels.dtype)
      if not schema.box_keys:
        valid &= labels == 1
    valid &= ~_has_odd_size(encoded, valid)
    suspect = tf.ones_like(valid) if decode_all else ~valid
    return tf.where(suspect)[:, 0], tf.boolean_mask(batch, suspect)

  batches = records.batch(_BATCH_SIZE).map(quick_check)
  for batch_index, (indices, suspects) in enumerate(batches.as_numpy_iterator()):
    for index, record in zip(indices, suspects, strict=True):
      yield batch_index * _BATCH_SIZE + int(index), record


def _has_odd_size(encoded: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
  """Returns which JPEG images are too narrow to crop or too large to decode, by their headers.

  Raises an error of `PARSE_ERRORS` if a header is invalid.
  """
  small = tf.where(is_jpeg & (tf.strings.length(encoded) <= _MAX_ODD_BYTES))
  sizes = tf.map_fn(
    lambda image: tf.cast(tf.io.extract_jpeg_shape(image)[:2], tf.int64),
    tf.gather_nd(encoded, small),
    fn_output_signature=tf.TensorSpec([2], tf.int64),
  )
  is_odd = (tf.reduce_min(sizes, 1) < MIN_CLASSIFIED_SIDE) | (tf.reduce_prod(sizes, 1) > MAX_PIXELS)
  return tf.scatter_nd(small, is_odd, tf.shape(encoded, out_type=tf.int64))


def _features(schema: RecordSchema) -> dict[str, object]:
  text = tf.io.FixedLenFeature([], tf.string, "")
  features = {schema.image_key: text, "image/source_id": text, "image/filename": text}
  if schema.label_key is not None:
    features[schema.label_key] = tf.io.RaggedFeature(tf.int64)
  for key in schema.box_keys:
    features[key] = tf.io.RaggedFeature(tf.float32)
  return features
