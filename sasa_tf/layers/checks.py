"""Checks of arguments and inputs that the layers share."""

from __future__ import annotations

from collections.abc import Sequence


def head_width(filters: int, num_heads: int) -> int:
  """Returns the head width D = filters / num_heads.

  Raises:
    ValueError: `filters` or `num_heads` is not a positive int, or `filters` is not a multiple of
      `num_heads`.
  """
  if not isinstance(filters, int) or not isinstance(num_heads, int) or min(filters, num_heads) < 1:
    raise ValueError(
      "filters and num_heads must be positive ints; received "
      f"filters={filters!r}, num_heads={num_heads!r}."
    )
  if filters % num_heads:
    raise ValueError(
      "filters must be a multiple of num_heads, because the heads split the channels evenly; "
      f"received filters={filters} and num_heads={num_heads}. The nearest multiples are "
      f"{filters // num_heads * num_heads} and {(filters // num_heads + 1) * num_heads}."
    )
  return filters // num_heads


def require_channels(layer: str, input_shape: Sequence[int | None]) -> int:
  """Returns the number of channels C of `input_shape` [B, H, W, C].

  Args:
    layer: class name of the layer, for the error message.
    input_shape: shape that the layer is built for.

  Raises:
    ValueError: C is unknown.
  """
  channels = tuple(input_shape)[-1]
  if channels is None:
    raise ValueError(
      f"{layer} needs to know the channels C of its input when it is built; received shape "
      f"{tuple(input_shape)}. Set the last dimension, as in Input([None, None, 64])."
    )
  return channels
