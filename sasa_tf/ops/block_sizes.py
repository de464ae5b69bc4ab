"""The sizes of the blocks that `blocked` works in."""

from __future__ import annotations

from sasa_tf.ops.geometry import WindowGeometry

# Of rows and of columns, best first. 32 queries fill vector registers and matrix units, and few
# rows against more columns keep the tile of keys (10 x 14 for a 7 x 7 window) close to the window.
_LENGTHS = ((4, 5, 3), (8, 7, 6, 5))


def block_length(phase: int | None, kernel: int, axis: int) -> int:
  """Returns the rows (axis 0) or columns (axis 1) of queries in a block.

  Args:
    phase: rows (columns) of the image, divided by the dilation rate; None where unknown.
    kernel: rows (columns) of the window.
    axis: 0 or 1.
  """
  usual = _LENGTHS[axis][0]
  if phase is None:
    return usual
  if phase < _LENGTHS[1][0] + kernel:
    return phase  # the image is no larger than a tile would be: one block, without a halo
  for length in _LENGTHS[axis]:
    if -(-phase // length) * length <= 1.2 * phase:
      return length
  return usual


def block_size(image: tuple[int | None, int | None], geometry: WindowGeometry) -> tuple[int, int]:
  """Returns (rows, columns) of queries in a block."""
  return tuple(
    block_length(None if size is None else -(-size // rate), kernel, axis)
    for axis, (size, kernel, rate) in enumerate(
      zip(image, geometry.kernel_size, geometry.dilation_rate, strict=True)
    )
  )
