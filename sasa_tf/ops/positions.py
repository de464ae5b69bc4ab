"""Absolute positions: fixed sinusoids of a pixel's row and column."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.autograph import without_autograph


def _sinusoids(length: tf.Tensor | int, channels: int) -> tf.Tensor:
  """Returns [length, channels]: sines, then cosines, of geometrically growing wavelengths."""
  frequencies = -(-channels // 2)
  exponents = tf.range(frequencies, dtype=tf.float32) / max(frequencies, 1)
  positions = tf.cast(tf.range(length), tf.float32)
  angles = positions[:, None] * tf.pow(10000.0, -exponents)
  return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)[:, :channels]


@without_autograph
def sinusoidal_positions(
  height: tf.Tensor | int, width: tf.Tensor | int, channels: int
) -> tf.Tensor:
  """Returns a fixed embedding of every pixel's absolute position.

  The first half of the channels encodes the row, the second half the column, each as the
  sinusoids of "Attention Is All You Need" with wavelengths from 2 pi to 2 pi * 10000 pixels.

  Args:
    height: H, an int or a scalar tensor.
    width: W likewise.
    channels: C, any positive int; if odd, the row gets the larger half.

  Returns:
    float32 [H, W, C].
  """
  rows = _sinusoids(height, channels - channels // 2)
  columns = _sinusoids(width, channels // 2)
  return tf.concat(
    [
      tf.repeat(rows[:, None], width, axis=1),
      tf.repeat(columns[None], height, axis=0),
    ],
    axis=-1,
  )
