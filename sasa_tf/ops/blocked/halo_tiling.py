"""Tiling of images into blocks of queries and haloed tiles of keys, as reshapes and slices.

All operations are linear and, with heads folded into the batch, have at most four dimensions, so
that every TensorFlow backend runs them. Overlapping tiles are made of slices, whose gradients are
sums in a fixed order, so that results are deterministic.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from sasa_tf.ops.checks import Size, ceil_divide, sizes, softmax_dtype, static_size
from sasa_tf.ops.empty import at_least_one
from sasa_tf.ops.window import WindowGeometry
from sasa_tf.ops.xla_barriers import fusion_barrier, target_device


def _swap(tensor: tf.Tensor, shape: list[Size]) -> tf.Tensor:
  """Reshapes the tensor to four dimensions and transposes the middle ones."""
  return tf.transpose(tf.reshape(tensor, shape), [0, 2, 1, 3])


def _is(size: Size, number: int) -> bool:
  """Returns whether the size is static and equal to `number`."""
  return isinstance(size, int) and size == number


def _column_unit(depth: int) -> int:
  """Returns into how many entries of the column axis the D channels of a pixel are folded.

  A TPU pads the last dimension in memory to 128 elements, so D is folded into the axis before it.
  Other devices copy contiguous pixels faster.
  """
  return depth if target_device() == "TPU" else 1


def _at_most(number: int, size: Size) -> Size:
  return min(number, size) if isinstance(size, int) else tf.minimum(number, size)


@dataclasses.dataclass(frozen=True)
class HaloTiling:
  """Tiling of images into G blocks of queries, each with a haloed tile of keys.

  With a dilation rate above one the image is first split into phases (the pixels whose row and
  column are equal modulo the rate), within which the window is dense. Blocks are ordered by image,
  head, row phase, column phase, block row and block column.

  Attributes:
    geometry: the window.
    image: (H, W), each an int if static and else a scalar tensor.
    block: (rows, columns) of queries in a block.
    single: (rows, columns), whether one block spans that axis of a phase. Its tile is then the
      phase itself, without a halo.
  """

  geometry: WindowGeometry
  image: tuple[Size, Size]
  block: tuple[int, int]
  single: tuple[bool, bool]

  @property
  def rates(self) -> tuple[int, int]:
    """(rows, columns) number of phases."""
    return self.geometry.dilation_rate

  @property
  def halo(self) -> tuple[int, int]:
    """(rows, columns) of keys on each side of a block, in pixels of a phase."""
    rows, columns = self.geometry.kernel_size
    return rows // 2, columns // 2

  @property
  def reach(self) -> tuple[int, int]:
    """(rows, columns) that the windows of a block cover: the block and its halo."""
    (rows, columns), (halo_rows, halo_columns) = self.block, self.halo
    return rows + 2 * halo_rows, columns + 2 * halo_columns

  @property
  def tile(self) -> tuple[int, int]:
    """(rows, columns) of the keys that a block loads: its reach, or the block if it is single."""
    rows, columns = (
      b if single else r for b, r, single in zip(self.block, self.reach, self.single, strict=True)
    )
    return rows, columns

  @property
  def margin(self) -> tuple[int, int]:
    """(rows, columns) from the start of the reach to the tile: the halo if single, else 0."""
    rows, columns = (h if single else 0 for h, single in zip(self.halo, self.single, strict=True))
    return rows, columns

  @property
  def _pixels(self) -> tuple[Size, Size]:
    """(H, W) with sizes that are unknown when the graph is built at least 1."""
    height, width = self.image
    return at_least_one(height), at_least_one(width)

  @property
  def counts(self) -> tuple[Size, Size]:
    """(rows, columns) of blocks in a phase."""
    rows, columns = (
      ceil_divide(size, block * rate)
      for size, block, rate in zip(self._pixels, self.block, self.rates, strict=True)
    )
    return rows, columns

  @property
  def blocks(self) -> Size:
    """Number of blocks of one head of one image."""
    return math.prod([*self.rates, *self.counts])

  @property
  def logits(self) -> int:
    """Number of logits of one block."""
    return math.prod([*self.block, *self.tile])

  def _phase_size(self) -> tuple[Size, Size]:
    """(rows, columns) of a phase, padded to full blocks."""
    (row_blocks, column_blocks), (rows, columns) = self.counts, self.block
    return row_blocks * rows, column_blocks * columns

  def _to_phases(self, images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, N, D] -> [B N phases, rows, columns, D]."""
    batch, height, width, heads, depth = sizes(images)
    images = _swap(images, [batch, height * width, heads, depth])
    images = tf.reshape(images, [batch * heads, height, width, depth])
    (rows, columns), (row_rate, column_rate) = self._phase_size(), self.rates
    below, right = rows * row_rate - height, columns * column_rate - width
    if not (_is(below, 0) and _is(right, 0)):
      images = tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
    if row_rate > 1:
      images = _swap(images, [-1, rows, row_rate, columns * column_rate * depth])
    if column_rate > 1:
      images = _swap(images, [-1, rows * columns, column_rate, depth])
    return tf.reshape(images, [-1, rows, columns, depth])

  def _from_phases(self, phases: tf.Tensor, heads: int) -> tf.Tensor:
    """Inverse of `_to_phases`."""
    (height, width), depth = self._pixels, static_size(phases, -1)
    (rows, columns), (row_rate, column_rate) = self._phase_size(), self.rates
    if column_rate > 1:
      phases = _swap(phases, [-1, column_rate, rows * columns, depth])
    if row_rate > 1:
      phases = _swap(phases, [-1, row_rate, rows, columns * column_rate * depth])
    images = tf.reshape(phases, [-1, rows * row_rate, columns * column_rate, depth])
    images = images[:, :height, :width]
    images = _swap(images, [-1, heads, height * width, depth])
    images = tf.reshape(images, [-1, height, width, heads, depth])
    if height is self.image[0] and width is self.image[1]:
      return images
    return images[:, : self.image[0], : self.image[1]]

  def split_queries(self, images: tf.Tensor) -> tf.Tensor:
    """Splits images into blocks of queries.

    Args:
      images: [B, H, W, N, D].

    Returns:
      [G, block rows * block columns, D], with zeros below and right of the image.
    """
    rows, columns = self.block
    column_blocks = self.counts[1]
    phases, depth = self._to_phases(images), static_size(images, -1)
    if not _is(column_blocks, 1):
      phases = _swap(phases, [-1, rows, column_blocks, columns * depth])
    return tf.reshape(phases, [-1, rows * columns, depth])

  def join_queries(self, blocks: tf.Tensor, heads: int) -> tf.Tensor:
    """Inverse of `split_queries`, for images of `heads` heads."""
    rows, columns = self.block
    phase_rows, phase_columns = self._phase_size()
    column_blocks, depth = self.counts[1], static_size(blocks, -1)
    if not _is(column_blocks, 1):
      blocks = _swap(blocks, [-1, column_blocks, rows, columns * depth])
    phases = tf.reshape(blocks, [-1, phase_rows, phase_columns, depth])
    return self._from_phases(phases, heads)

  def split_keys(self, images: tf.Tensor) -> tf.Tensor:
    """Splits images into the overlapping tiles of keys of the blocks.

    Args:
      images: [B, H, W, N, D].

    Returns:
      [G, tile rows * tile columns, D], with zeros outside the image.
    """
    (tile_rows, tile_columns), depth = self.tile, static_size(images, -1)
    (_, column_blocks), (rows, columns) = self.counts, self._phase_size()
    tiles = self._to_phases(images)
    if not self.single[0]:
      tiles = self._overlap(tf.reshape(tiles, [-1, rows, columns * depth]), 0)
    if not self.single[1]:
      unit = _column_unit(depth)
      tiles = tf.reshape(tiles, [-1, columns * unit, depth // unit])
      tiles = self._overlap(tiles, 1, unit)
    if not _is(column_blocks, 1):
      tiles = _swap(tiles, [-1, tile_rows, column_blocks, tile_columns * depth])
    return tf.reshape(tiles, [-1, tile_rows * tile_columns, depth])

  def fold_keys(self, tiles: tf.Tensor, heads: int) -> tf.Tensor:
    """Transpose of `split_keys`: sums each pixel over the tiles that contain it.

    Args:
      tiles: [G, tile rows * tile columns, D].
      heads: N.

    Returns:
      [B, H, W, N, D].
    """
    (tile_rows, tile_columns), depth = self.tile, static_size(tiles, -1)
    (_, column_blocks), (rows, columns) = self.counts, self._phase_size()
    if not _is(column_blocks, 1):
      tiles = _swap(tiles, [-1, column_blocks, tile_rows, tile_columns * depth])
    if not self.single[1]:
      unit = _column_unit(depth)
      tiles = tf.reshape(tiles, [-1, tile_columns * unit, depth // unit])
      tiles = fusion_barrier(self._fold(tiles, 1, unit))
    if not self.single[0]:
      tiles = self._fold(tf.reshape(tiles, [-1, tile_rows, columns * depth]), 0)
    return self._from_phases(tf.reshape(tiles, [-1, rows, columns, depth]), heads)

  def _extents(self, axis: int, unit: int) -> list[Size]:
    """Returns block, halo, tile and phase size along an axis, with `unit` entries per pixel."""
    pixels = (self.block, self.halo, self.tile, self._phase_size())
    return [extent[axis] * unit for extent in pixels]

  def _overlap(self, lines: tf.Tensor, axis: int, unit: int = 1) -> tf.Tensor:
    """[A, phase * unit, D] -> [A * blocks, tile * unit, D], with zeros past the ends."""
    block, halo, tile, length = self._extents(axis, unit)
    width = sizes(lines)[-1]
    after = -(-tile // block) * block - block - halo
    lines = tf.pad(lines, [[0, 0], [halo, after], [0, 0]])
    parts = []
    for start in range(0, tile, block):
      part = tf.reshape(lines[:, start : start + length], [-1, block, width])
      parts.append(part[:, : tile - start])
    return tf.concat(parts, axis=1)

  def _fold(self, tiles: tf.Tensor, axis: int, unit: int = 1) -> tf.Tensor:
    """[A * blocks, tile * unit, D] -> [A, phase * unit, D], the transpose of `_overlap`.

    Sums have the softmax's dtype.
    """
    tiles = tf.cast(tiles, softmax_dtype(tiles.dtype))
    block, halo, tile, length = self._extents(axis, unit)
    width = sizes(tiles)[-1]
    shifted = []
    for start in range(0, tile, block):
      part = tiles[:, start : start + block]
      part = tf.pad(part, [[0, 0], [0, max(start + block - tile, 0)], [0, 0]])
      part = tf.reshape(part, [-1, length, width])
      outside = _at_most(abs(start - halo), length)  # entries past one end
      if start > halo:
        part = tf.pad(part[:, : length - outside], [[0, 0], [outside, 0], [0, 0]])
      elif start < halo:
        part = tf.pad(part[:, outside:], [[0, 0], [0, outside], [0, 0]])
      shifted.append(part)
    return tf.add_n(shifted)
