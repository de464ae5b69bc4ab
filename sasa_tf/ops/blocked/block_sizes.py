"""The block sizes of the `blocked` implementation."""

from __future__ import annotations

from sasa_tf.ops.export_context import product_columns
from sasa_tf.ops.window import WindowGeometry
from sasa_tf.ops.xla_barriers import target_device

# Rows and columns of queries, best first. 32 queries fill vector registers and matrix units, and
# few rows with more columns keep the tile of keys (10 x 14 for a 7 x 7 window) close to the window.
# A GPU writes all logits to memory, so smaller blocks, whose tiles hold fewer masked keys, are
# faster there (H200, forward + backward at 56 x 56 x 64: 4 x 4 4.7 ms, 4 x 8 5.6, 8 x 8 7.7).
_LENGTHS = ((4, 5, 3), (8, 7, 6, 5))


def block_length(phase: int | None, kernel: int, axis: int) -> int:
  """Returns the number of rows (axis 0) or columns (axis 1) of queries in a block.

  Args:
    phase: rows (columns) of the image divided by the dilation rate; None if unknown.
    kernel: rows (columns) of the window.
    axis: 0 or 1.
  """
  default = _LENGTHS[axis][0]
  if phase is None:
    return default
  if phase < _LENGTHS[1][0] + kernel:
    return phase  # the image is no larger than a tile: one block without a halo
  for length in _LENGTHS[axis]:
    if -(-phase // length) * length <= 1.2 * phase:
      return length
  return default


def _gpu_block_size(
  phases: tuple[int | None, int | None], kernel: tuple[int, int]
) -> tuple[int, int]:
  rows, columns = phases
  if columns is None or columns >= 8 + kernel[1]:
    return (4 if rows is None or rows > kernel[0] else rows), 4
  return (2 if rows is None or rows > kernel[0] else rows), columns


def export_block_size(
  image: tuple[int | None, int | None], geometry: WindowGeometry, head_dim: int | None = None
) -> tuple[int, int]:
  """Returns (rows, columns) of queries in a block of an exported model.

  Chosen by the time on a CPU in TensorFlow and in LiteRT: small tiles hold few masked keys. Where
  narrow heads share products, half as many queries suffice.

  Args:
    image: (H, W), None if unknown.
    geometry: the window.
    head_dim: channels of a head.
  """

  def length(size: int | None, rate: int, kernel: int) -> int:
    if size is None:
      return 4
    phase = -(-size // rate)
    if geometry.border == "mask" and phase < 8 + kernel:
      return phase  # one block without a halo
    if phase <= 14:
      return phase if phase <= 7 else -(-phase // 2)
    return 4

  rows, columns = map(length, image, geometry.dilation_rate, geometry.kernel_size)
  is_narrow = product_columns() > 0 and head_dim is not None and head_dim <= 8
  if is_narrow and (rows, columns) == (4, 4) and min(geometry.kernel_size) >= 7:
    return 2, 4
  return rows, columns


def block_size(image: tuple[int | None, int | None], geometry: WindowGeometry) -> tuple[int, int]:
  """Returns (rows, columns) of queries in a block, for the target device.

  Args:
    image: (H, W), None if unknown.
    geometry: the window.
  """
  rows, columns = (
    None if size is None else -(-size // rate)
    for size, rate in zip(image, geometry.dilation_rate, strict=True)
  )
  if target_device() == "GPU":
    return _gpu_block_size((rows, columns), geometry.kernel_size)
  kernel_rows, kernel_columns = geometry.kernel_size
  return block_length(rows, kernel_rows, 0), block_length(columns, kernel_columns, 1)
