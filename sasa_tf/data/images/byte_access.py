"""Reads bytes and finds the chunks of encoded images with TensorFlow operations.

The operations run eagerly, in a graph and in an exported model. They accept any bytes: what is
beyond the end of the data reads as zeros, and every step of a search advances, so that a search
ends.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Of a search. Larger than the number of chunks of any sensible file.
_MAX_STEPS = 10_000


def constant(position: int) -> tf.Tensor:
  """Returns an int64 scalar."""
  return tf.constant(position, tf.int64)


def read_bytes(data: tf.Tensor, position: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
  """Returns bytes of a scalar string as int64 [count]; zeros beyond its end.

  Args:
    data: scalar string.
    position: int64 scalar, not negative.
    count: number of bytes, positive.
  """
  position = tf.minimum(position, tf.cast(tf.strings.length(data), tf.int64))
  count = tf.cast(count, tf.int32)
  part = tf.strings.substr(data, position, tf.cast(count, tf.int64))
  return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int64)


def number(digits: tf.Tensor, *, little_endian: tf.Tensor | bool = False) -> tf.Tensor:
  """Returns the unsigned integers in the last axis: bytes [..., count] to int64 [...]."""
  increasing = [256**i for i in range(digits.shape[-1])]
  little, big = (tf.constant(each, tf.int64) for each in (increasing, increasing[::-1]))
  if isinstance(little_endian, bool):
    powers = little if little_endian else big
  else:
    powers = tf.where(little_endian, little, big)
  return tf.reduce_sum(digits * powers, axis=-1)


def equals(found: tf.Tensor, text: bytes) -> tf.Tensor:
  """Returns whether bytes [count] are `text`."""
  return tf.reduce_all(found == tf.constant(list(text), tf.int64))


def find_chunk(
  data: tf.Tensor,
  start: tf.Tensor | int,
  header_bytes: int,
  visit: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> tf.Tensor:
  """Walks through the chunks of a file until one is found.

  Args:
    data: scalar string.
    start: position of the first chunk.
    header_bytes: number of bytes that `visit` needs.
    visit: takes the position of a chunk and its first bytes [header_bytes]. Returns whether the
      search ends here, found, and the position of the next chunk; a position that is not larger
      ends the search, not found.

  Returns:
    The position of the found chunk, int64 scalar, or -1.
  """
  end = tf.cast(tf.strings.length(data), tf.int64)

  def unfinished(position: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    return (found < 0) & (position < end)

  def step(position: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    here, following = visit(position, read_bytes(data, position, header_bytes))
    return tf.where(following > position, following, end), tf.where(here, position, found)

  _, found = tf.while_loop(
    unfinished,
    step,
    (tf.cast(start, tf.int64), constant(-1)),
    maximum_iterations=_MAX_STEPS,
    parallel_iterations=1,
  )
  return found
