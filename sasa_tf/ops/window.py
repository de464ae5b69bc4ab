"""The static shape of a local attention window: the plan that every implementation executes."""

from __future__ import annotations

import dataclasses
import functools

BORDERS = ("zero", "mask")


def int_pair(name: str, value: int | tuple[int, int] | list[int]) -> tuple[int, int]:
  """Returns (rows, columns) for a positive int or a pair of them; `name` is for the error."""
  pair = (value, value) if isinstance(value, int) else value
  valid = (
    isinstance(pair, (tuple, list))
    and len(pair) == 2
    and all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in pair)
  )
  if not valid:
    raise ValueError(
      f"{name} must be a positive int or a pair (rows, columns) of positive ints; "
      f"received {value!r}."
    )
  return tuple(pair)


@dataclasses.dataclass(frozen=True)
class WindowGeometry:
  """A window of `kernel_size` positions, `dilation_rate` apart, centred on each query.

  Hashable and free of tensors: made once from static arguments by `window_geometry`, then shared by
  the implementations, the cost model and the tests.

  Attributes:
    kernel_size: (rows, columns) of the window, both odd.
    dilation_rate: (rows, columns) distance in pixels between neighbouring window positions.
    border: "zero" or "mask", what a neighbour outside of the image is.
  """

  kernel_size: tuple[int, int]
  dilation_rate: tuple[int, int]
  border: str

  @property
  def size(self) -> int:
    """Number of positions in the window."""
    return self.kernel_size[0] * self.kernel_size[1]

  @property
  def reach(self) -> tuple[int, int]:
    """(rows, columns) in pixels from the query to the window's farthest position."""
    return tuple(k // 2 * d for k, d in zip(self.kernel_size, self.dilation_rate, strict=True))

  @property
  def offsets(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Row offsets a - i and column offsets b - j in pixels, in the order of the embeddings."""
    return tuple(
      tuple(d * (index - k // 2) for index in range(k))
      for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)
    )


@functools.cache
def _checked(
  kernel_size: tuple[int, int], dilation_rate: tuple[int, int], border: str
) -> WindowGeometry:
  if any(k % 2 == 0 for k in kernel_size):
    raise ValueError(
      "kernel_size must be odd, because the window is centred on its query (paper Sec. 3.1); "
      f"received {kernel_size}. Use {tuple(k + 1 - k % 2 for k in kernel_size)} instead."
    )
  if border not in BORDERS:
    raise ValueError(
      f"border must be one of {BORDERS}: 'zero' lets neighbours outside of the image take part "
      f"with zero keys and values, 'mask' excludes them; received {border!r}."
    )
  return WindowGeometry(kernel_size, dilation_rate, border)


def window_geometry(
  kernel_size: int | tuple[int, int] = 7,
  dilation_rate: int | tuple[int, int] = 1,
  border: str = "zero",
) -> WindowGeometry:
  """Returns the checked geometry of a window.

  Args:
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask".

  Raises:
    ValueError: a kernel that is even or not positive, or an unknown border.
  """
  return _checked(
    int_pair("kernel_size", kernel_size), int_pair("dilation_rate", dilation_rate), border
  )
