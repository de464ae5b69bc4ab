"""Batches of encoded images: decoding, and errors that name the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.data.images.orientation import decode_upright


def parse_examples(serialized: tf.Tensor, image_key: str) -> tf.Tensor:
  """Returns the encoded images of serialized `tf.train.Example`s, strings [B].

  Raises:
    tf.errors.InvalidArgumentError: an example has no image. The message has its index.
  """
  indices = tf.strings.as_string(tf.range(tf.shape(serialized)[0]))
  names = tf.strings.join(["index ", indices, " of the batch"])
  features = {image_key: tf.io.FixedLenFeature([], tf.string)}
  return tf.io.parse_example(serialized, features, example_names=names)[image_key]


def map_encoded(prepare: Callable[[tf.Tensor], Any], encoded: tf.Tensor, spec: Any) -> Any:
  """Decodes and prepares images one by one, as their sizes differ.

  Args:
    prepare: maps uint8 [1, H, W, 3] to tensors [1, ...].
    encoded: strings [B], see `decode_upright`.
    spec: tensor specs of the result, without the batch axis.

  Returns:
    Tensors [B, ...].

  Raises:
    tf.errors.InvalidArgumentError: an element is no image. The message has its index.
  """

  def prepare_one(image: tf.Tensor) -> Any:
    prepared = prepare(decode_upright(image)[None])
    return tf.nest.map_structure(lambda tensor: tensor[0], prepared)

  with tf.control_dependencies([_assert_images(encoded)]):
    encoded = tf.identity(encoded)
  return tf.map_fn(prepare_one, encoded, fn_output_signature=spec, parallel_iterations=32)


def _assert_images(encoded: tf.Tensor) -> tf.Operation:
  """Checks the formats of all images at once: a decoder's error would not have the index."""
  start = tf.strings.substr(encoded, 0, 12)

  def begins_with(prefix: bytes) -> tf.Tensor:
    return tf.strings.substr(start, 0, len(prefix)) == prefix

  is_webp = begins_with(b"RIFF") & tf.strings.regex_full_match(start, r"RIFF\C{4}WEBP")
  known = is_webp
  for prefix in (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM"):
    known |= begins_with(prefix)
  message = "no JPEG, PNG, GIF, BMP or WebP image at these indices of the batch:"
  return tf.debugging.Assert(tf.reduce_all(known), [message, tf.where(~known)[:, 0]], summarize=20)
