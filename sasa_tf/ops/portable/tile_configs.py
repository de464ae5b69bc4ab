"""How the tensor core kernels of exported models divide an image, tuned on an H200.

They use static shared memory, of which a CTA has 48 KiB, so their tiles are smaller than those of
the compiled library.
"""

from __future__ import annotations

import dataclasses

# Of an H100 and an H200. Grids are sized for them.
_MULTIPROCESSORS = 132


@dataclasses.dataclass(frozen=True)
class TileConfig:
  """The macros of a tile configuration, see MmaTiles in native/cuda/mma_traits.cuh.

  Attributes:
    warps: of a CTA, each with two rows of pixels; a power of two.
    tile_columns: pixels of a CTA tile's row.
    min_ctas_per_sm: for the compiler, which limits the registers accordingly.
    staged_store: whether results are stored by way of shared memory.
    split_rows: whether warps share rows at the lower end of an image.
    compact_buffer: whether the buffer of keys and values has as few rows as possible.
    ctas_per_sm: of the grid; more than are resident at a time balance the load.
  """

  warps: int
  tile_columns: int
  min_ctas_per_sm: int
  staged_store: bool = False
  split_rows: bool = False
  compact_buffer: bool = False
  ctas_per_sm: int = 4

  def grid(self, head_groups: int) -> int:
    """Returns the number of CTAs, a multiple of the groups of heads that they divide."""
    ctas = _MULTIPROCESSORS * self.ctas_per_sm
    return max(ctas // head_groups, 1) * head_groups


# Of windows other than 7 x 7, by kernel size and head_dim. Not tuned: the library's tiles, made
# smaller until they fit.
_OTHER_WINDOWS = {
  (3, 4): TileConfig(4, 28, 6, ctas_per_sm=12),
  (3, 8): TileConfig(4, 28, 7, ctas_per_sm=14),
  (3, 16): TileConfig(4, 16, 4, staged_store=True, ctas_per_sm=8),
  (3, 32): TileConfig(4, 16, 4, staged_store=True, ctas_per_sm=8),
  (3, 64): TileConfig(4, 8, 3, staged_store=True, ctas_per_sm=6),
  (5, 4): TileConfig(4, 14, 5, ctas_per_sm=10),
  (5, 8): TileConfig(4, 14, 6, split_rows=True, ctas_per_sm=12),
  (5, 16): TileConfig(4, 8, 4, compact_buffer=True, ctas_per_sm=8),
  (5, 32): TileConfig(4, 8, 4, compact_buffer=True, ctas_per_sm=8),
  (5, 64): TileConfig(2, 8, 3, compact_buffer=True, ctas_per_sm=6),
  (9, 4): TileConfig(4, 14, 5, ctas_per_sm=10),
  (9, 8): TileConfig(4, 14, 5, ctas_per_sm=10),
  (9, 16): TileConfig(2, 8, 5, ctas_per_sm=10),
  (9, 32): TileConfig(2, 8, 4, ctas_per_sm=8),
  (9, 64): TileConfig(1, 4, 2, compact_buffer=True),
  (11, 4): TileConfig(4, 16, 4, compact_buffer=True, ctas_per_sm=8),
  (11, 8): TileConfig(4, 16, 4, compact_buffer=True, ctas_per_sm=8),
  (11, 16): TileConfig(2, 8, 5, ctas_per_sm=10),
  (11, 32): TileConfig(2, 8, 4, ctas_per_sm=8),
}


def tile_config(kernel_size: int, head_dim: int, width: int) -> TileConfig | None:
  """Returns the fastest configuration for heads of this width in images of this width.

  Args:
    kernel_size: rows and columns of the window.
    head_dim: channels of a head.
    width: of the image.

  Returns:
    None if tiles of these heads do not fit into static shared memory.
  """
  if kernel_size != 7:
    return _OTHER_WINDOWS.get((kernel_size, head_dim))
  if head_dim <= 8:
    return TileConfig(4, 28, 5, compact_buffer=True, ctas_per_sm=10)
  if head_dim == 16 and width > 32:
    return TileConfig(4, 12, 4, ctas_per_sm=12)
  if head_dim == 16:
    return TileConfig(4, 16, 4, staged_store=True, compact_buffer=True)
  if head_dim == 32 and width > 16:
    return TileConfig(
      4, 16, 4, staged_store=True, split_rows=True, compact_buffer=True, ctas_per_sm=12
    )
  if head_dim == 32:
    return TileConfig(4, 16, 4, staged_store=True, compact_buffer=True)
  return TileConfig(2, 8, 5, compact_buffer=True, ctas_per_sm=5)
