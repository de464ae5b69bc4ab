"""The max pooling of the attention stem, which exported models compute before its batch norm.

The output of the stem for all pixels is the largest array of a network. In exported models the
attention pools each block as soon as it is computed, and the array never exists. Batch norm is
increasing or decreasing in each channel, by the sign of its gamma. So the maximum after it is the
result of the maximum or of the minimum before it.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from sasa_tf.layers.keras_mixin import KerasMixin

_signs: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
  "stem_pooling_signs", default=None
)


@contextlib.contextmanager
def pooling_within_stem(gamma: Any) -> Iterator[None]:
  """Context manager in which `AttentionStem` pools its blocks, and `StemPooling2D` does nothing.

  Args:
    gamma: [filters], that of the batch norm between them.
  """
  gamma = tf.convert_to_tensor(gamma)
  # A channel whose gamma is 0 is constant after the batch norm.
  token = _signs.set(tf.where(gamma < 0, -tf.ones_like(gamma), tf.ones_like(gamma)))
  try:
    yield
  finally:
    _signs.reset(token)


def pooling_signs() -> tf.Tensor | None:
  """Returns 1 for each channel whose maximum `AttentionStem` returns and -1 for its minimum.

  None if it does not pool.
  """
  return _signs.get()


class StemPooling2DBase(KerasMixin):
  """`MaxPooling2D` over the blocks of an `AttentionStem`, after its batch norm.

  Input: [B, H, W, C].

  Output: [B, ceil(H / block rows), ceil(W / block columns), C].
  """

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Pools the blocks, unless the stem did."""
    return super().call(inputs) if pooling_signs() is None else inputs  # type: ignore[misc]
