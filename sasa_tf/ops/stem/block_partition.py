"""The cut of images into blocks that do not overlap, as the stem's attention sees them.

The grid is that of a pooling of the same size and stride with padding "SAME", so that such a
pooling of the result takes each block as a whole. Where H or W is no multiple of the block, the
outer blocks therefore hold fewer pixels: up to half of the missing ones are missing above (left),
the others below (right), and no block is without a pixel.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from sasa_tf.ops.blocked.halo_tiling import Size, sizes


@dataclasses.dataclass(frozen=True)
class BlockGrid:
  """Blocks on images of one size; P = block rows * block columns places in each.

  Attributes:
    block: (rows, columns) of a block in pixels.
    image: (B, H, W), each an int where known and a scalar tensor where not.
  """

  block: tuple[int, int]
  image: tuple[Size, Size, Size]

  @classmethod
  def of(cls, images: tf.Tensor, block: tuple[int, int]) -> BlockGrid:
    """Returns the grid on images [B, H, W, ...]."""
    return cls(block, tuple(sizes(images)[:3]))

  @property
  def _margins(self) -> tuple[tuple[Size, Size], tuple[Size, Size]]:
    """((above, below), (left, right)) in pixels that the blocks reach beyond the image."""
    missing = [-size % length for size, length in zip(self.image[1:], self.block, strict=True)]
    return tuple((total // 2, total - total // 2) for total in missing)

  @property
  def _counts(self) -> tuple[Size, Size]:
    """(rows, columns) of blocks in an image."""
    return tuple(
      -(-size // length) for size, length in zip(self.image[1:], self.block, strict=True)
    )

  @property
  def count(self) -> Size:
    """G, the number of blocks in all images."""
    return self.image[0] * self._counts[0] * self._counts[1]

  @property
  def places(self) -> int:
    """P, the number of pixels in a block."""
    return self.block[0] * self.block[1]

  @property
  def is_ragged(self) -> bool:
    """Whether some block may reach beyond the image, as far as is known."""
    return not all(isinstance(x, int) and x == 0 for margin in self._margins for x in margin)

  def split(self, images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [G, P, C], G blocks row by row, zeros where there is no pixel."""
    (batch, _, _), (rows, columns), (high, wide) = self.image, self.block, self._counts
    channels = sizes(images)[3]
    if self.is_ragged:
      images = tf.pad(images, [(0, 0), *self._margins, (0, 0)])
    # Sizes are never -1, which an empty batch would leave undecided.
    bands = tf.reshape(images, [batch * high, rows, wide, columns * channels])
    blocks = tf.transpose(bands, [0, 2, 1, 3])
    return tf.reshape(blocks, [self.count, self.places, channels])

  def join(self, blocks: tf.Tensor) -> tf.Tensor:
    """[G, P, C] -> [B, H, W, C], undoes `split`."""
    (batch, height, width), (rows, columns) = self.image, self.block
    high, wide = self._counts
    channels = sizes(blocks)[2]
    blocks = tf.reshape(blocks, [batch * high, wide, rows, columns * channels])
    bands = tf.transpose(blocks, [0, 2, 1, 3])
    images = tf.reshape(bands, [batch, high * rows, wide * columns, channels])
    if not self.is_ragged:
      return images
    (above, _), (left, _) = self._margins
    return images[:, above : above + height, left : left + width]
