"""The spatial operation of pyramids and heads, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sasa_tf.modeling.blocks import SpatialOperation

SPATIAL = ("conv", "attention")


def spatial_operation(
  spatial: str,
  keras: ModuleType,
  attention: Callable[..., Any],
  window: dict[str, Any],
  kernel: dict[str, Any],
  attention_kernel: dict[str, Any] | None = None,
) -> SpatialOperation:
  """Returns a 3x3 convolution with bias, or local self-attention in its place.

  Args:
    spatial: one of `SPATIAL`.
    keras: the Keras module.
    attention: its `LocalSelfAttention2D`.
    window: arguments of attention alone: `kernel_size`, `num_heads` and so on.
    kernel: arguments of a convolution: initializer and regularizer.
    attention_kernel: the same of attention, where they are others.

  Raises:
    ValueError: no operation has this name.
  """
  if spatial not in SPATIAL:
    raise ValueError(f"spatial must be one of {SPATIAL}; received {spatial!r}.")
  if spatial == "attention":
    return functools.partial(attention, **window, **(attention_kernel or kernel))
  return functools.partial(keras.layers.Conv2D, kernel_size=3, padding="same", **kernel)
