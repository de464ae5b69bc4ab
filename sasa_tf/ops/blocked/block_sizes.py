"""The sizes of the blocks that `blocked` works in."""

from __future__ import annotations

from sasa_tf.ops.target_device import target_device
from sasa_tf.ops.window import WindowGeometry

# Of rows and of columns, best first. 32 queries fill vector registers and matrix units, and few
# rows against more columns keep the tile of keys (10 x 14 for a 7 x 7 window) close to the window.
# A GPU writes all logits to memory, so there small blocks, whose tiles hold fewer keys that are not
# used, are faster (H200, forward + backward at 56 x 56 x 64: 4 x 4 4.7 ms, 4 x 8 5.6, 8 x 8 7.7).
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


def _gpu_block_size(
  phases: tuple[int | None, int | None], kernel: tuple[int, int]
) -> tuple[int, int]:
  rows, columns = phases
  if columns is None or columns >= 8 + kernel[1]:
    return (4 if rows is None or rows > kernel[0] else rows), 4
  return (2 if rows is None or rows > kernel[0] else rows), columns


def block_size(image: tuple[int | None, int | None], geometry: WindowGeometry) -> tuple[int, int]:
  """Returns (rows, columns) of queries in a block, for the device that operations are made for.

  Args:
    image: (H, W), None where unknown.
    geometry: the window.
  """
  phases = tuple(
    None if size is None else -(-size // rate)
    for size, rate in zip(image, geometry.dilation_rate, strict=True)
  )
  if target_device() == "GPU":
    return _gpu_block_size(phases, geometry.kernel_size)
  return tuple(
    block_length(phase, kernel, axis)
    for axis, (phase, kernel) in enumerate(zip(phases, geometry.kernel_size, strict=True))
  )
