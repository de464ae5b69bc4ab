"""Top-down step of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.ops.checks import sizes, with_static_shape


class UpsampleAdd2DBase(KerasMixin):
  """Upsamples a coarse feature map by 2 (nearest neighbor) and adds it to a fine one.

  This is the top-down step of a feature pyramid (Lin et al. 2017, arXiv 1612.03144). Images may
  have any size: if the fine map has an odd height or width, the upsampled map is cropped.

  Example:
    `finer = UpsampleAdd2D()([coarse, fine])`

  Input: [coarse [B, ceil(H / 2), ceil(W / 2), C], fine [B, H, W, C]], H and W may be
  unknown.

  Output: [B, H, W, C].
  """

  def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Adds the upsampled coarse map to the fine one: [B, H, W, C]."""
    coarse, fine = map(tf.convert_to_tensor, inputs)
    _, height, width, _ = sizes(fine)
    # Repeats, because the gradient of resizing does not exist for every dtype and device.
    repeated = tf.repeat(tf.repeat(coarse, 2, axis=1), 2, axis=2)[:, :height, :width]
    return with_static_shape(repeated + fine, fine.shape)

  def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
    """Returns the shape of the fine map."""
    _, fine = input_shape
    return tuple(fine)
