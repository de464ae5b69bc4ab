"""Tiling of images into blocks of queries and haloed tiles of keys, by gathered pixels.

The tiles are those of `halo_tiling`. A gather replaces its padding, slices and concatenations: it
copies pixels with all of their channels, which every runtime does fast, but its gradient is slow.
So only exported models use it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.ops.checks import (
  Size,
  ceil_divide,
  inferable_sizes,
  reshape_inferring,
  static_size,
)
from sasa_tf.ops.window import WindowGeometry


def constant(compute: Callable[[], tf.Tensor]) -> tf.Tensor:
  """Returns a result that depends on no tensor as a constant of the graph."""
  with tf.init_scope():
    value: Any = compute()
  return tf.constant(value.numpy())


@dataclasses.dataclass(frozen=True)
class GatheredTiles:
  """Tiling of images into blocks of n queries, each with a tile of t keys.

  Blocks are ordered by row phase, block row, column phase and block column; see `HaloTiling` for
  phases.

  Attributes:
    geometry: the window.
    image: (H, W), each an int if static and else a scalar tensor.
    block: (rows, columns) of queries in a block.
    single: (rows, columns), whether one block spans that axis of a phase and its tile is the block,
      without a halo.
    selected: (first, last + 1) of the blocks that `blocks`, `split_queries`, `split_keys` and
      `in_image` refer to, of images of static size; None for all.
  """

  geometry: WindowGeometry
  image: tuple[Size, Size]
  block: tuple[int, int]
  single: tuple[bool, bool]
  selected: tuple[int, int] | None = None

  @property
  def margin(self) -> tuple[int, int]:
    """(rows, columns) of the halo that the tiles lack: half of the window if single, else 0."""
    rows, columns = self.geometry.kernel_size
    return rows // 2 * self.single[0], columns // 2 * self.single[1]

  @property
  def tile(self) -> tuple[int, int]:
    """(rows, columns) of the keys of a block."""
    rows, columns = (
      b if single else b + kernel - 1
      for b, kernel, single in zip(self.block, self.geometry.kernel_size, self.single, strict=True)
    )
    return rows, columns

  @property
  def queries(self) -> int:
    """n, the number of queries in a block."""
    return math.prod(self.block)

  @property
  def keys(self) -> int:
    """t, the number of keys in a tile."""
    return math.prod(self.tile)

  def _count(self, axis: int) -> Size:
    """Number of blocks in a phase along an axis."""
    return ceil_divide(self.image[axis], self.block[axis] * self.geometry.dilation_rate[axis])

  @property
  def is_static(self) -> bool:
    """Whether H and W are known when the graph is built."""
    return all(isinstance(size, int) for size in self.image)

  @property
  def blocks(self) -> Size:
    """Number of selected blocks of an image."""
    if self.selected is not None:
      return self.selected[1] - self.selected[0]
    return math.prod(self.geometry.dilation_rate) * self._count(0) * self._count(1)

  def parts(self, count: int) -> list[GatheredTiles]:
    """Returns `count` selections of about equally many blocks, for images of static size."""
    bounds = [part * self.blocks // count for part in range(count + 1)]
    return [
      dataclasses.replace(self, selected=(first, end)) for first, end in itertools.pairwise(bounds)
    ]

  def _of_selected(self, entries: tf.Tensor) -> tf.Tensor:
    """Returns the part of entries of all blocks, of equally many for each, that is selected."""
    if self.selected is None:
      return entries
    each = static_size(entries, 0) // dataclasses.replace(self, selected=None).blocks
    return entries[self.selected[0] * each : self.selected[1] * each]

  def _positions(self, axis: int, length: int, before: int) -> tf.Tensor:
    """Returns the row (column) of each pixel along an axis of every block, [blocks, length]."""
    rate = self.geometry.dilation_rate[axis]
    first = tf.range(self._count(axis)) * (self.block[axis] * rate)
    first = tf.reshape(tf.range(rate)[:, None] + first, [-1, 1])
    return first + (tf.range(length) - before) * rate

  def _key_positions(self, axis: int) -> tf.Tensor:
    before = self.geometry.kernel_size[axis] // 2 - self.margin[axis]
    return self._positions(axis, self.tile[axis], before)

  def _inside(self, axis: int) -> tf.Tensor:
    """Returns whether each row (column) of the tiles is in the image, [blocks, tile]."""
    positions = self._key_positions(axis)
    return (positions >= 0) & (positions < self.image[axis])

  def _flat(self, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Returns the pixels row * W + column of blocks, [blocks * pixels of a block]."""
    return tf.reshape(rows[:, None, :, None] * self.image[1] + columns[:, None], [-1])

  def _static(self, compute: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Returns the result as a constant of the graph if H and W are static."""
    return constant(compute) if self.is_static else compute()

  def _query_pixels(self) -> tf.Tensor:
    rows, columns = (  # outputs of queries outside the image are dropped
      tf.minimum(self._positions(axis, self.block[axis], 0), self.image[axis] - 1)
      for axis in (0, 1)
    )
    return self._of_selected(self._flat(rows, columns))

  def _key_pixels(self) -> tf.Tensor:
    """Pixels of the tiles; H * W outside the image."""
    pixels = self._flat(self._key_positions(0), self._key_positions(1))
    inside = self._inside(0)[:, None, :, None] & self._inside(1)[:, None]
    outside = self.image[0] * self.image[1]
    return self._of_selected(tf.where(tf.reshape(inside, [-1]), pixels, outside))

  def _output_pixels(self) -> tf.Tensor:
    """The query that computes each pixel of the image, [H * W]."""
    entries, offsets = [], []
    for axis in (0, 1):
      rate, block = self.geometry.dilation_rate[axis], self.block[axis]
      pixel = tf.range(self.image[axis])
      entries.append(pixel % rate * self._count(axis) + pixel // (rate * block))
      offsets.append(pixel // rate % block)
    column_blocks = self.geometry.dilation_rate[1] * self._count(1)
    block = entries[0][:, None] * column_blocks + entries[1]
    offset = offsets[0][:, None] * self.block[1] + offsets[1]
    return tf.reshape(block * self.queries + offset, [-1])

  def split_queries(self, pixels: tf.Tensor, batch: Size) -> tf.Tensor:
    """Splits images [B, H * W, C] into blocks of queries [B * blocks, n, C]."""
    queries = tf.gather(pixels, self._static(self._query_pixels), axis=1)
    return reshape_inferring(queries, [batch * self.blocks, self.queries, pixels.shape[2]])

  def split_keys(self, pixels: tf.Tensor, batch: Size) -> tf.Tensor:
    """Splits images into tiles of keys [B * blocks, t, C].

    Args:
      pixels: [B, H * W + 1, C], where the last pixel is what neighbors outside of the image have.
      batch: B, negative if it is to be inferred.
    """
    keys = tf.gather(pixels, self._static(self._key_pixels), axis=1)
    return reshape_inferring(keys, [batch * self.blocks, self.keys, pixels.shape[2]])

  def join_queries(self, blocks: tf.Tensor, heads: int, repeated: bool) -> tf.Tensor:
    """Inverse of `split_queries` for all blocks: [B, blocks * n, channels] -> [B, H * W, N * D].

    Args:
      blocks: outputs of the queries, N * D channels.
      heads: N.
      repeated: whether the outputs have N * N * D channels instead, those of each head for each
        head, of which head i has its own at i.
    """
    if not repeated or heads == 1:
      return tf.gather(blocks, self._static(self._output_pixels), axis=1)

    def own_entries() -> tf.Tensor:
      first = self._output_pixels()[:, None] * heads**2
      return tf.reshape(first + tf.range(heads) * (heads + 1), [-1])

    entries = self._static(own_entries)
    depth = static_size(blocks, 2) // heads**2
    batch, pixels = inferable_sizes(blocks)[:2]
    blocks = reshape_inferring(blocks, [batch, pixels * heads**2, depth])
    gathered = tf.gather(blocks, entries, axis=1)
    return reshape_inferring(gathered, [batch, math.prod(self.image), heads * depth])

  def window_offsets(self, axis: int) -> tf.Tensor:
    """Returns the position in a query's window of each row (column) of the tile, [block, tile].

    Keys outside of the window have positions below 0 or from the kernel's size on.
    """
    return tf.range(self.tile[axis]) + self.margin[axis] - tf.range(self.block[axis])[:, None]

  def in_window(self, axis: int) -> tf.Tensor:
    """Returns whether each row (column) of the tile is in a query's window, [n, tile]."""
    offsets = self.window_offsets(axis)
    inside = (offsets >= 0) & (offsets < self.geometry.kernel_size[axis])
    if axis == 0:
      return tf.repeat(inside, self.block[1], axis=0)
    return tf.tile(inside, [self.block[0], 1])

  def in_image(self) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns whether the rows and the columns of each tile are in the image, [blocks, tile]."""

    def expanded(axis: int) -> tf.Tensor:
      inside = self._inside(axis)
      others = self.geometry.dilation_rate[1 - axis] * self._count(1 - axis)
      if axis == 0:
        inside = tf.tile(inside[:, None], [1, others, 1])
      else:
        inside = tf.tile(inside[None], [others, 1, 1])
      return self._of_selected(tf.reshape(inside, [-1, self.tile[axis]]))

    return self._static(lambda: expanded(0)), self._static(lambda: expanded(1))
