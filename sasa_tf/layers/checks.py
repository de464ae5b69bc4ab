"""Checks of arguments and inputs that the layers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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


def equal_pair(name: str, value: Any) -> int:
  """Returns the positive int that an argument is, or that both of its elements are.

  `Conv2D` takes a pair (rows, columns) for these arguments.

  Raises:
    ValueError: it is neither a positive int nor a pair of equal ones.
  """
  if isinstance(value, (tuple, list)) and len(value) == 2 and value[0] == value[1]:
    value = value[0]
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise ValueError(
      f"{name} must be a positive int, or a pair (rows, columns) of equal ones; received {value!r}."
    )
  return value


def check_layout(data_format: str | None, padding: str | None = "same") -> None:
  """Checks the arguments of `Conv2D` that have only one value here.

  Args:
    data_format: "channels_last", or None for the same. The global setting of Keras has no effect.
    padding: "same" in lower or upper case.

  Raises:
    ValueError: an argument has another value.
  """
  if data_format not in (None, "channels_last"):
    raise ValueError(
      "data_format must be 'channels_last', as inputs are [B, H, W, C]; received "
      f"{data_format!r}. Transpose the images, for example with Permute((2, 3, 1))."
    )
  if not isinstance(padding, str) or padding.lower() != "same":
    raise ValueError(
      "padding must be 'same': there is an output for every pixel, or for every strides x strides "
      f"pixels; received {padding!r}. Crop the output for other paddings."
    )


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
