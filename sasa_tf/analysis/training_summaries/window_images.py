"""Images of attention windows side by side, over a dimmed image."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sasa_tf.analysis.attention import MapGeometry

# Of the longest side, in pixels.
IMAGE_SIZE = 128
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)
_DIMMED = 0.6
_COLOR = np.array([230, 159, 0], np.float32)  # the orange of reporting.plot_style


def tiling_queries(geometry: MapGeometry) -> np.ndarray:
  """Returns the pixels of a layer whose windows cover its input without overlap: int [P, 2].

  Strips at the edges that are smaller than a window are not covered.
  """
  axes = [
    _tile_centers(size, length * rate)
    for size, length, rate in zip(
      geometry.size, geometry.kernel_size, geometry.dilation_rate, strict=True
    )
  ]
  return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _tile_centers(size: int, extent: int) -> np.ndarray:
  count = max(1, size // extent)
  first = (size - count * extent) // 2 + extent // 2
  return np.clip(first + extent * np.arange(count), 0, size - 1)


def heat_map(weights: np.ndarray, pixels: np.ndarray, geometry: MapGeometry) -> np.ndarray:
  """Draws windows that do not overlap at their positions.

  Args:
    weights: [B, P, K, K], means over the heads.
    pixels: int [P, 2], the queries of `tiling_queries`.
    geometry: of the layer.

  Returns:
    float32 [B, H, W], the weights divided by the largest one of their window.
  """
  heat = np.zeros((len(weights), *geometry.size), np.float32)
  positions = geometry.window_pixels(pixels)
  inside = geometry.is_inside(positions)
  rows, columns = positions[inside].T
  scaled = weights / np.maximum(weights.max(axis=(2, 3), keepdims=True), 1e-30)
  heat[:, rows, columns] = scaled[:, inside]
  return heat


def window_images(images: np.ndarray, heat: np.ndarray, geometry: MapGeometry) -> np.ndarray:
  """Returns the heat map of a layer over the images: uint8 [B, h, w, 3].

  Args:
    images: [B, H, W, 3], values from 0 to 255.
    heat: [B, H', W'] of the layer, see `heat_map`.
    geometry: of the layer.
  """
  size = _shown_size(images.shape[1:3])
  method = "area" if size[0] < images.shape[1] else "nearest"
  shown = tf.image.resize(images, size, method).numpy()
  gray = _DIMMED * (shown @ _GRAY)[..., None]
  scale = np.divide(images.shape[1:3], size)
  rows, columns = (
    geometry.layer_pixels((np.arange(length)[:, None] + 0.5) * scale)[:, axis]
    for axis, length in enumerate(size)
  )
  opacity = heat[:, rows][:, :, columns][..., None]
  blended = gray * (1 - opacity) + _COLOR * opacity
  return np.round(np.clip(blended, 0, 255)).astype(np.uint8)


def _shown_size(size: tuple[int, ...]) -> tuple[int, int]:
  """Returns a size of at most `IMAGE_SIZE`, which is a multiple of the size of a small image."""
  longest = max(size)
  scale = max(1, IMAGE_SIZE // longest) if longest <= IMAGE_SIZE else IMAGE_SIZE / longest
  height, width = (max(1, round(length * scale)) for length in size)
  return height, width
