"""Statistics of attention windows: entropy, distance, and the weight of the padding."""

from __future__ import annotations

import dataclasses

import numpy as np

from sasa_tf.analysis.attention.geometry import MapGeometry


@dataclasses.dataclass(frozen=True)
class WindowStatistics:
  """Statistics of each head: means over the images and the query pixels, float [N].

  Attributes:
    entropy: of a window's weights, in nats. The uniform window has `max_entropy`.
    max_entropy: log of the number of positions in a window.
    distance: mean distance of what a pixel attends to, weighted by the attention, in pixels of the
      layer's input. Positions outside of the image count with their distance.
    image_distance: the same in pixels of the image.
    padding_share: share of the weight that positions outside of the image have. It is 0 for
      border="mask" and for stems.
  """

  entropy: np.ndarray
  max_entropy: float
  distance: np.ndarray
  image_distance: np.ndarray
  padding_share: np.ndarray

  @classmethod
  def of(cls, weights: np.ndarray, pixels: np.ndarray, geometry: MapGeometry) -> WindowStatistics:
    """Returns the statistics of windows.

    Args:
      weights: [B, P, N, K, K].
      pixels: int [P, 2], the queries.
      geometry: of the layer.
    """
    positions = geometry.window_pixels(pixels)
    offsets = positions - pixels[:, None, None]  # [P, K, K, 2]
    outside = ~geometry.is_inside(positions)
    distance = np.linalg.norm(offsets, axis=-1)
    image_distance = np.linalg.norm(offsets * np.array(geometry.stride), axis=-1)

    def head_means(values: np.ndarray) -> np.ndarray:
      return np.einsum("bpnij,pij->n", weights, values) / (weights.shape[0] * weights.shape[1])

    entropy = -np.sum(weights * np.log(np.maximum(weights, 1e-30)), axis=(3, 4))
    return cls(
      entropy=entropy.mean(axis=(0, 1)),
      max_entropy=float(np.log(weights.shape[3] * weights.shape[4])),
      distance=head_means(distance),
      image_distance=head_means(image_distance),
      padding_share=head_means(outside.astype(np.float32)),
    )
