"""The static geometry of a local attention window."""

from __future__ import annotations

import dataclasses

from sasa_tf.ops.types import Border


@dataclasses.dataclass(frozen=True)
class WindowGeometry:
  """A window of `kernel_size` positions, `dilation_rate` pixels apart, centered on each query.

  Hashable and free of tensors. `checks.window_geometry` creates it from checked arguments.

  Attributes:
    kernel_size: (rows, columns) of the window, both odd.
    dilation_rate: (rows, columns), distance in pixels between adjacent window positions.
    border: "zero" or "mask", how neighbors outside the image are treated.
  """

  kernel_size: tuple[int, int]
  dilation_rate: tuple[int, int]
  border: Border

  def within(self, height: int | None, width: int | None) -> WindowGeometry:
    """Returns a geometry with the same window in images of this size (None if unknown).

    A dilation rate larger than the image moves all neighbors but the query itself outside, as the
    image's size does.
    """
    rate = self.dilation_rate
    rows, columns = (
      r if size is None else min(r, max(size, 1))
      for r, size in zip(rate, (height, width), strict=True)
    )
    if (rows, columns) == rate:
      return self
    return dataclasses.replace(self, dilation_rate=(rows, columns))

  @property
  def size(self) -> int:
    """Number of positions in the window."""
    return self.kernel_size[0] * self.kernel_size[1]

  @property
  def reach(self) -> tuple[int, int]:
    """(rows, columns) in pixels from the query to the farthest position of the window."""
    (rows, columns), (row_rate, column_rate) = self.kernel_size, self.dilation_rate
    return rows // 2 * row_rate, columns // 2 * column_rate

  @property
  def offsets(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Row offsets a - i and column offsets b - j in pixels, in the order of the embeddings."""
    rows, columns = (
      tuple(rate * (index - size // 2) for index in range(size))
      for size, rate in zip(self.kernel_size, self.dilation_rate, strict=True)
    )
    return rows, columns
