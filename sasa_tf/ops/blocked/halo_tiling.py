"""Blocks of queries and the haloed tiles of keys that they attend to, as reshapes and slices.

Everything here is linear and has at most four dimensions once heads are folded into the batch, so
that it runs on every TensorFlow back end. Halos overlap by slices, whose gradients are additions in
a fixed order.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from sasa_tf.ops.fusion import not_fused
from sasa_tf.ops.precision import softmax_dtype
from sasa_tf.ops.target_device import target_device
from sasa_tf.ops.window import WindowGeometry

Size = int | tf.Tensor


def sizes(tensor: tf.Tensor) -> list[Size]:
  """The shape, each dimension an int where known and a scalar tensor where not."""
  if tensor.shape.is_fully_defined():
    return tensor.shape.as_list()
  dynamic = tf.unstack(tf.shape(tensor))
  return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def _swap(tensor: tf.Tensor, shape: list[Size]) -> tf.Tensor:
  """Views the tensor as four dimensions and exchanges the middle ones."""
  return tf.transpose(tf.reshape(tensor, shape), [0, 2, 1, 3])


def _is(size: Size, number: int) -> bool:
  """Whether the size is known to be `number`."""
  return isinstance(size, int) and size == number


def _column_unit(depth: int) -> int:
  """Returns into how many entries of an axis the D numbers of a pixel go.

  A TPU pads the last dimension in memory to 128 numbers, so there D joins the one before. Other
  devices copy whole pixels faster.
  """
  return depth if target_device() == "TPU" else 1


def _at_most(number: int, size: Size) -> Size:
  return min(number, size) if isinstance(size, int) else tf.minimum(number, size)


@dataclasses.dataclass(frozen=True)
class BlockLayout:
  """How images fall into blocks of queries.

  With a dilation rate above one the image is first split into its phases (the pixels whose rows and
  columns are equal modulo the rate), inside of which the window is dense. Blocks are numbered by
  image, head, row phase, column phase, row and column of blocks; their number is G.

  Attributes:
    geometry: the window.
    image: (H, W), each an int where known and a scalar tensor where not.
    block: (rows, columns) of queries in a block.
    whole: (rows, columns), whether the block spans that axis of a phase; its tile of keys then is
      the phase itself, without a halo.
  """

  geometry: WindowGeometry
  image: tuple[Size, Size]
  block: tuple[int, int]
  whole: tuple[bool, bool]

  @property
  def rates(self) -> tuple[int, int]:
    """(rows, columns) number of phases."""
    return self.geometry.dilation_rate

  @property
  def halo(self) -> tuple[int, int]:
    """(rows, columns) of keys on each side of a block, in pixels of a phase."""
    return tuple(k // 2 for k in self.geometry.kernel_size)

  @property
  def reach(self) -> tuple[int, int]:
    """(rows, columns) that the windows of a block cover."""
    return tuple(b + 2 * h for b, h in zip(self.block, self.halo, strict=True))

  @property
  def tile(self) -> tuple[int, int]:
    """(rows, columns) of the keys that a block loads: its reach, or the phase where it is whole."""
    return tuple(
      b if whole else r for b, r, whole in zip(self.block, self.reach, self.whole, strict=True)
    )

  @property
  def margin(self) -> tuple[int, int]:
    """(rows, columns) of the reach before the tile begins: the halo where it is whole, else 0."""
    return tuple(h if whole else 0 for h, whole in zip(self.halo, self.whole, strict=True))

  @property
  def counts(self) -> tuple[Size, Size]:
    """(rows, columns) of blocks in a phase."""
    return tuple(
      -(-size // (block * rate))
      for size, block, rate in zip(self.image, self.block, self.rates, strict=True)
    )

  @property
  def blocks(self) -> Size:
    """Those of one head of an image."""
    return math.prod([*self.rates, *self.counts])

  @property
  def logits(self) -> int:
    """Those of one block."""
    return math.prod([*self.block, *self.tile])

  def _phase_size(self) -> tuple[Size, Size]:
    """(rows, columns) of a phase, padded to whole blocks."""
    return tuple(count * block for count, block in zip(self.counts, self.block, strict=True))

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
    """Undoes `_to_phases`."""
    (height, width), depth = self.image, phases.shape[-1]
    (rows, columns), (row_rate, column_rate) = self._phase_size(), self.rates
    if column_rate > 1:
      phases = _swap(phases, [-1, column_rate, rows * columns, depth])
    if row_rate > 1:
      phases = _swap(phases, [-1, row_rate, rows, columns * column_rate * depth])
    images = tf.reshape(phases, [-1, rows * row_rate, columns * column_rate, depth])
    images = images[:, :height, :width]
    images = _swap(images, [-1, heads, height * width, depth])
    return tf.reshape(images, [-1, height, width, heads, depth])

  def split_queries(self, images: tf.Tensor) -> tf.Tensor:
    """Cuts images into blocks.

    Args:
      images: [B, H, W, N, D].

    Returns:
      [G, block rows * block columns, D], zeros below and right of the image.
    """
    rows, columns = self.block
    column_blocks = self.counts[1]
    phases, depth = self._to_phases(images), images.shape[-1]
    if not _is(column_blocks, 1):
      phases = _swap(phases, [-1, rows, column_blocks, columns * depth])
    return tf.reshape(phases, [-1, rows * columns, depth])

  def join_queries(self, blocks: tf.Tensor, heads: int) -> tf.Tensor:
    """Undoes `split_queries` for images of `heads` heads."""
    rows, columns = self.block
    phase_rows, phase_columns = self._phase_size()
    column_blocks, depth = self.counts[1], blocks.shape[-1]
    if not _is(column_blocks, 1):
      blocks = _swap(blocks, [-1, column_blocks, rows, columns * depth])
    phases = tf.reshape(blocks, [-1, phase_rows, phase_columns, depth])
    return self._from_phases(phases, heads)

  def split_keys(self, images: tf.Tensor) -> tf.Tensor:
    """Cuts images into the tiles of keys that the blocks attend to.

    Args:
      images: [B, H, W, N, D].

    Returns:
      [G, tile rows * tile columns, D], zeros outside of the image.
    """
    (tile_rows, tile_columns), depth = self.tile, images.shape[-1]
    (_, column_blocks), (rows, columns) = self.counts, self._phase_size()
    tiles = self._to_phases(images)
    if not self.whole[0]:
      tiles = self._overlap(tf.reshape(tiles, [-1, rows, columns * depth]), 0)
    if not self.whole[1]:
      unit = _column_unit(depth)
      tiles = tf.reshape(tiles, [-1, columns * unit, depth // unit])
      tiles = self._overlap(tiles, 1, unit)
    if not _is(column_blocks, 1):
      tiles = _swap(tiles, [-1, tile_rows, column_blocks, tile_columns * depth])
    return tf.reshape(tiles, [-1, tile_rows * tile_columns, depth])

  def fold_keys(self, tiles: tf.Tensor, heads: int) -> tf.Tensor:
    """The transpose of `split_keys`: sums each pixel over the tiles that loaded it.

    Args:
      tiles: [G, tile rows * tile columns, D].
      heads: of the images.

    Returns:
      [B, H, W, N, D].
    """
    (tile_rows, tile_columns), depth = self.tile, tiles.shape[-1]
    (_, column_blocks), (rows, columns) = self.counts, self._phase_size()
    if not _is(column_blocks, 1):
      tiles = _swap(tiles, [-1, column_blocks, tile_rows, tile_columns * depth])
    if not self.whole[1]:
      unit = _column_unit(depth)
      tiles = tf.reshape(tiles, [-1, tile_columns * unit, depth // unit])
      tiles = not_fused(self._fold(tiles, 1, unit))
    if not self.whole[0]:
      tiles = self._fold(tf.reshape(tiles, [-1, tile_rows, columns * depth]), 0)
    return self._from_phases(tf.reshape(tiles, [-1, rows, columns, depth]), heads)

  def _extents(self, axis: int, unit: int) -> list[Size]:
    """Block, halo, tile and phase of an axis, in entries of `unit` a pixel."""
    pixels = (self.block, self.halo, self.tile, self._phase_size())
    return [extent[axis] * unit for extent in pixels]

  def _overlap(self, lines: tf.Tensor, axis: int, unit: int = 1) -> tf.Tensor:
    """[A, phase * unit, D] -> [A * blocks, tile * unit, D], zeros beyond the ends."""
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

    Sums are formed in the dtype of the softmax.
    """
    tiles = tf.cast(tiles, softmax_dtype(tiles.dtype))
    block, halo, tile, length = self._extents(axis, unit)
    width = sizes(tiles)[-1]
    shifted = []
    for start in range(0, tile, block):
      part = tiles[:, start : start + block]
      part = tf.pad(part, [[0, 0], [0, max(start + block - tile, 0)], [0, 0]])
      part = tf.reshape(part, [-1, length, width])
      lost = _at_most(abs(start - halo), length)  # lies beyond one end of the lines
      if start > halo:
        part = tf.pad(part[:, : length - lost], [[0, 0], [lost, 0], [0, 0]])
      elif start < halo:
        part = tf.pad(part[:, lost:], [[0, 0], [0, lost], [0, 0]])
      shifted.append(part)
    return tf.add_n(shifted)
