"""The step from a coarse level of a feature pyramid to the next finer one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.layers.keras_mixin import KerasBound


class UpsampleAdd2DBase(KerasBound):
  """Adds a map, each pixel repeated twice in both directions, to one of twice its size.

  The top-down step of a feature pyramid (Lin et al. 2017, arXiv 1612.03144), for images of any
  size: where a level of odd size was halved, the row or column too many is left out.

  Example:
    `finer = UpsampleAdd2D()([coarse, fine])`

  Input: [coarse [B, ceil(H / 2), ceil(W / 2), C], fine [B, H, W, C]], H and W known or not.
  Output: [B, H, W, C].
  """

  def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Adds the coarse map to the fine one: [B, H, W, C]."""
    coarse, fine = map(tf.convert_to_tensor, inputs)
    _, height, width, _ = tf.unstack(tf.shape(fine))
    # A gradient of repetition exists in every dtype and on every device; that of resizing does not.
    repeated = tf.repeat(tf.repeat(coarse, 2, axis=1), 2, axis=2)[:, :height, :width]
    return tf.ensure_shape(repeated + fine, fine.shape)

  def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
    """Returns the shape of the fine map."""
    _, fine = input_shape
    return tuple(fine)
