"""Partition of images into non-overlapping blocks for the stem's attention.

Blocks are aligned with the windows of a pooling of the same size and stride with padding "SAME", so
that such a pooling of the output reduces each block. If H or W is not a multiple of the block, the
outer blocks are padded: half of the missing pixels, rounded down, above (left), the others below
(right). No block is empty.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from sasa_tf.ops.checks import Size, ceil_divide, reshape_inferring, sizes, static_size


@dataclasses.dataclass(frozen=True)
class BlockPartition:
  """Partition of images into G blocks of P = block rows * block columns positions.

  Attributes:
    block: (rows, columns) of a block in pixels.
    image: (B, H, W), each an int if static and else a scalar tensor; B may be negative if it is to
      be inferred.
  """

  block: tuple[int, int]
  image: tuple[Size, Size, Size]

  @classmethod
  def of(cls, images: tf.Tensor, block: tuple[int, int]) -> BlockPartition:
    """Returns the partition of images [B, H, W, ...]."""
    batch, height, width = sizes(images)[:3]
    return cls(block, (batch, height, width))

  @property
  def _margins(self) -> tuple[tuple[Size, Size], tuple[Size, Size]]:
    """((above, below), (left, right)) padding of the image in pixels."""
    rows, columns = (
      count * length - size
      for count, length, size in zip(self.counts, self.block, self.image[1:], strict=True)
    )
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)

  @property
  def counts(self) -> tuple[Size, Size]:
    """(rows, columns) of blocks in an image."""
    rows, columns = (
      ceil_divide(size, length) for size, length in zip(self.image[1:], self.block, strict=True)
    )
    return rows, columns

  @property
  def count(self) -> Size:
    """G, the number of blocks in all images."""
    return self.image[0] * self.counts[0] * self.counts[1]

  @property
  def positions(self) -> int:
    """P, the number of positions in a block."""
    return self.block[0] * self.block[1]

  @property
  def is_ragged(self) -> bool:
    """Whether blocks may reach outside the image; True if the size is unknown."""
    return not all(isinstance(x, int) and x == 0 for margin in self._margins for x in margin)

  def split(self, images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [G, P, C], with blocks in row-major order and zeros outside the image."""
    (batch, _, _), (rows, columns), (high, wide) = self.image, self.block, self.counts
    channels = static_size(images, 3)
    if self.is_ragged:
      images = tf.pad(images, [(0, 0), *self._margins, (0, 0)])
    bands = reshape_inferring(images, [batch * high, rows, wide, columns * channels])
    blocks = tf.transpose(bands, [0, 2, 1, 3])
    return reshape_inferring(blocks, [self.count, self.positions, channels])

  def join(self, blocks: tf.Tensor) -> tf.Tensor:
    """[G, P, C] -> [B, H, W, C], the inverse of `split`."""
    (batch, height, width), (rows, columns) = self.image, self.block
    high, wide = self.counts
    channels = static_size(blocks, 2)
    blocks = reshape_inferring(blocks, [batch * high, wide, rows, columns * channels])
    bands = tf.transpose(blocks, [0, 2, 1, 3])
    images = reshape_inferring(bands, [batch, high * rows, wide * columns, channels])
    if not self.is_ragged:
      return images
    (above, _), (left, _) = self._margins
    return images[:, above : above + height, left : left + width]
