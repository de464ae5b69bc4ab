"""How heads split the channels."""

from __future__ import annotations


def head_width(filters: int, num_heads: int) -> int:
  """Returns D = filters / num_heads.

  Raises:
    ValueError: not two positive ints, or no whole number of channels for each head.
  """
  if not isinstance(filters, int) or not isinstance(num_heads, int) or min(filters, num_heads) < 1:
    raise ValueError(
      "filters and num_heads must be positive ints; received "
      f"filters={filters!r}, num_heads={num_heads!r}."
    )
  if filters % num_heads:
    raise ValueError(
      f"filters must be a multiple of num_heads, as the heads split the channels evenly; "
      f"received filters={filters} and num_heads={num_heads}. The nearest multiples are "
      f"{filters // num_heads * num_heads} and {(filters // num_heads + 1) * num_heads}."
    )
  return filters // num_heads
