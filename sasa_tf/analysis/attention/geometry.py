"""Positions of an attention layer's pixels and windows in the image."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sasa_tf.layers import AttentionStemBase


@dataclasses.dataclass(frozen=True)
class MapGeometry:
  """How the windows of a layer relate to the image.

  A pixel (i, j) of the layer's input covers the image from (i, j) * stride to
  (i + 1, j + 1) * stride. Feature maps of networks with padding "same" have this layout; what a
  pixel depends on is wider. The layer attends at the resolution of its input. With strides its
  output pixel (i, j) is the mean of the attended pixels from (i, j) * output_strides on, see
  `input_pixels`.

  Attributes:
    image_size: (H, W) of the image.
    size: (H, W) of the layer's input.
    kernel_size: (rows, columns) of a window, or of a block of the stem.
    dilation_rate: (rows, columns) between adjacent positions of a window.
    num_heads: N.
    output_strides: strides of the layer, 1 or more.
    is_block: whether pixels attend within blocks that do not overlap (`AttentionStem`), instead of
      windows centered on them.
  """

  image_size: tuple[int, int]
  size: tuple[int, int]
  kernel_size: tuple[int, int]
  dilation_rate: tuple[int, int]
  num_heads: int
  output_strides: int
  is_block: bool

  @classmethod
  def of(cls, layer: Any, size: tuple[int, int], image_size: tuple[int, int]) -> MapGeometry:
    """Returns the geometry of a layer on inputs of `size`, in an image of `image_size`."""
    if isinstance(layer, AttentionStemBase):
      block = (layer.block_size, layer.block_size)
      return cls(image_size, size, block, (1, 1), layer.num_heads, 1, True)
    return cls(
      image_size,
      size,
      layer.kernel_size,
      layer.dilation_rate,
      layer.num_heads,
      layer.strides,
      False,
    )

  @property
  def stride(self) -> tuple[float, float]:
    """(rows, columns) of image pixels between adjacent pixels of the layer's input."""
    rows, columns = map(self.stride_of, self.image_size, self.size)
    return rows, columns

  def layer_pixels(self, image_pixels: np.ndarray) -> np.ndarray:
    """Returns the pixels of the layer's input that cover image pixels: int [P, 2] both."""
    pixels = np.floor(np.asarray(image_pixels) / self.stride).astype(np.int64)
    return np.minimum(pixels, np.subtract(self.size, 1))

  def image_positions(self, layer_pixels: np.ndarray) -> np.ndarray:
    """Returns the centers of pixels of the layer's input in the image: float [P, 2]."""
    return (np.asarray(layer_pixels) + 0.5) * self.stride

  def input_pixels(self, output_pixel: tuple[int, int]) -> np.ndarray:
    """Returns the attended pixels whose mean is a pixel of the layer's output: int [P, 2]."""
    ranges = [
      np.arange(index * self.output_strides, min((index + 1) * self.output_strides, size))
      for index, size in zip(output_pixel, self.size, strict=True)
    ]
    return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 2)

  def window_pixels(self, layer_pixels: np.ndarray) -> np.ndarray:
    """Returns the positions of the windows of pixels [P, 2]: int [P, K, K, 2], or outside."""
    rows, columns = (
      self._axis_positions(np.asarray(layer_pixels)[:, axis], axis) for axis in (0, 1)
    )
    shape = (len(rows), *self.kernel_size)
    return np.stack(
      [np.broadcast_to(rows[:, :, None], shape), np.broadcast_to(columns[:, None, :], shape)], -1
    )

  def is_inside(self, window_pixels: np.ndarray) -> np.ndarray:
    """Returns whether positions [..., 2] are inside of the layer's input: bool [...]."""
    return np.all((window_pixels >= 0) & (window_pixels < np.array(self.size)), axis=-1)

  def grid(self, max_size: int) -> np.ndarray:
    """Returns a regular grid of at most max_size x max_size pixels of the layer: int [P, 2]."""
    return np.stack(np.meshgrid(*self.grid_axes(max_size), indexing="ij"), axis=-1).reshape(-1, 2)

  def grid_axes(self, max_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and the columns of `grid`."""
    steps = [-(-size // max_size) for size in self.size]
    rows, columns = (
      np.arange((min(step, size) - 1) // 2, size, step)
      for step, size in zip(steps, self.size, strict=True)
    )
    return rows, columns

  def _axis_positions(self, pixels: np.ndarray, axis: int) -> np.ndarray:
    """[P] -> [P, K], positions along one axis."""
    length, rate, size = self.kernel_size[axis], self.dilation_rate[axis], self.size[axis]
    if not self.is_block:
      return pixels[:, None] + rate * (np.arange(length) - length // 2)
    # Blocks are aligned as in a pooling with padding "SAME": half of the padding is above.
    above = (-(-size // length) * length - size) // 2
    first = (pixels + above) // length * length - above
    return first[:, None] + np.arange(length)

  @staticmethod
  def stride_of(fine: int, coarse: int) -> float:
    """Returns the pixels of a size that one of a coarser size covers, along one axis.

    This is the power of two that fits, for networks of strides 2 with padding "same", or else the
    ratio of the sizes.
    """
    stride = 1
    while stride < fine and -(-fine // stride) > coarse:
      stride *= 2
    return stride if -(-fine // stride) == coarse else fine / coarse
