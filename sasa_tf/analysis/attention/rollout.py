"""Attention rollout: how much each pixel of the image contributes to a pixel of the last layer.

Rollout multiplies the attention matrices of all layers, averaged over the heads and mixed with the
identity for the shortcut (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers",
arXiv 2005.00928, Sec. 3). Here the matrices are sparse, as each pixel attends to its window, and
the resolution changes between layers. From the last layer to the first, the share of a pixel is

  * spread equally over the pixels that it covers, where the resolution increases: by the strides
    of an attention layer (average pooling), of a convolution, or of a pooling;
  * at a layer with windows, moved by `1 - shortcut` along the weights of its window, averaged over
    the heads; the share `shortcut` stays, as in the shortcut of a residual block;
  * at the stem, which has no shortcut, moved along the weights of its block as a whole.

Shares that move to the padding are lost. Convolutions, values, and the sizes of the residual
branches are not considered, so rollout shows where attention could collect information, not what
the model has used.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf.analysis.attention.geometry import MapGeometry
from sasa_tf.analysis.attention.layer_inputs import AttentionCall, attention_calls, attention_names
from sasa_tf.analysis.attention.windows import CHUNK, window_weights
from sasa_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rollout:
  """Shares of the image's pixels.

  Attributes:
    layer: name of the layer whose output pixels are explained.
    pixels: int [P, 2], output pixels of that layer.
    shares: float32 [B, P, H, W], share of each pixel of the image. Their sum is 1 minus what was
      lost to the padding.
  """

  layer: str
  pixels: np.ndarray
  shares: np.ndarray


def attention_rollout(
  model: Any,
  images: Any,
  pixels: Any = None,
  *,
  layer: str | None = None,
  shortcut: float = 0.5,
) -> Rollout:
  """Rolls out the attention of all layers to the pixels of the images.

  Args:
    model: see `attention_maps`. Of a detector, the backbone is considered.
    images: [B, H, W, C], as the model takes them.
    pixels: int [P, 2], output pixels (row, column) of the layer; None for all of them.
    layer: name of the layer to begin at; None for the last one.
    shortcut: share that the shortcut of a block has, from 0 to 1.

  Raises:
    UserError: there is no such layer or pixel, or the layers are no chain from fine to coarse.
  """
  if not 0 <= shortcut <= 1:
    raise UserError(f"shortcut must be from 0 to 1; received {shortcut!r}.")
  images = tf.convert_to_tensor(images)
  image_size = tuple(images.shape[1:3])
  shares, name, selected = [], "", np.zeros((0, 2), np.int64)
  for image in images:
    calls = _chain(model, image[None], layer)
    name = calls[-1].name
    geometries = [MapGeometry.of(call.layer, _size(call), image_size) for call in calls]
    selected = _selected(pixels, geometries[-1], name)
    shares.append(_roll_out(calls, geometries, selected, shortcut))
  return Rollout(name, selected, np.stack(shares))


def _chain(model: Any, image: tf.Tensor, layer: str | None) -> list[AttentionCall]:
  names = attention_names(model)
  if layer is not None and layer not in names:
    raise UserError(f"the model has no attention layer {layer!r}; it has {', '.join(names)}.")
  calls: list[AttentionCall] = []
  for call in attention_calls(model, image):
    if call.part:
      break
    calls.append(call)
    if call.name == layer:
      break
  if not calls or layer not in (None, calls[-1].name):
    raise UserError(
      "attention rollout follows the layers of the backbone; "
      + (f"{layer!r} is in the pyramid or the head." if layer else "it has no attention layer.")
    )
  sizes = [_size(call) for call in calls]
  pairs = itertools.pairwise(sizes)
  if any(fine < coarse for pair in pairs for fine, coarse in zip(*pair, strict=True)):
    raise UserError(
      "attention rollout needs layers that follow each other from fine to coarse; received the "
      f"resolutions {sizes}. Pass layer=NAME to begin at an earlier layer."
    )
  return calls


def _size(call: AttentionCall) -> tuple[int, int]:
  height, width = call.inputs.shape[1:3]
  return height, width


def _selected(pixels: Any, geometry: MapGeometry, name: str) -> np.ndarray:
  size = tuple(-(-length // geometry.output_strides) for length in geometry.size)
  if pixels is None:
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 2)
  chosen = np.asarray(pixels)
  if chosen.ndim != 2 or chosen.shape[1] != 2 or not np.issubdtype(chosen.dtype, np.integer):
    raise UserError(f"pixels must be integers of shape [P, 2]; received {pixels!r}.")
  if np.any(chosen < 0) or np.any(chosen >= np.array(size)):
    raise UserError(
      f"pixels must be inside of the output of {name}, which has {size[0]} x {size[1]} pixels; "
      f"received {chosen.tolist()}."
    )
  return chosen.astype(np.int64)


def _roll_out(
  calls: Sequence[AttentionCall],
  geometries: Sequence[MapGeometry],
  pixels: np.ndarray,
  shortcut: float,
) -> np.ndarray:
  """Returns the shares of one image's pixels, [P, H, W]."""
  last = geometries[-1]
  size = tuple(-(-length // last.output_strides) for length in last.size)
  shares = np.zeros((len(pixels), *size), np.float32)
  shares[np.arange(len(pixels)), pixels[:, 0], pixels[:, 1]] = 1
  for call, geometry in zip(reversed(calls), reversed(geometries), strict=True):
    shares = _spread(shares, geometry.size)
    stays = 0.0 if geometry.is_block else shortcut
    shares = stays * shares + (1 - stays) * _moved(call, geometry, shares)
  return _spread(shares, last.image_size)


def _spread(shares: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Spreads shares [P, h, w] equally over the pixels of a finer size (H, W)."""
  for axis, (fine, coarse) in enumerate(zip(size, shares.shape[1:], strict=True), start=1):
    step = MapGeometry.stride_of(fine, coarse)
    index = np.minimum(np.arange(fine) // step, coarse - 1).astype(np.int64)
    count = np.bincount(index, minlength=coarse)[index]
    shape = [1, 1, 1]
    shape[axis] = fine
    shares = np.take(shares, index, axis=axis) / count.reshape(shape).astype(np.float32)
  return shares


def _moved(call: AttentionCall, geometry: MapGeometry, shares: np.ndarray) -> np.ndarray:
  """Moves shares [P, h, w] along the weights of the windows, averaged over the heads."""
  height, width = geometry.size
  flat = shares.reshape(len(shares), -1).T  # [h * w, P]
  result = tf.zeros_like(flat)
  used = np.flatnonzero(flat.any(axis=1))
  size = len(used) if geometry.is_block else CHUNK  # a stem's weights are computed as a whole
  for start in range(0, len(used), size or 1):
    chunk = used[start : start + size]
    pixels = np.stack(np.unravel_index(chunk, geometry.size), axis=-1)
    weights = window_weights(call.layer, call.inputs, pixels)[0].mean(axis=1)  # [C, K, K]
    positions = geometry.window_pixels(pixels)
    targets = positions[..., 0] * width + positions[..., 1]
    targets[~geometry.is_inside(positions)] = -1  # dropped by the sum
    for row, column in np.ndindex(*geometry.kernel_size):
      result += tf.math.unsorted_segment_sum(
        flat[chunk] * weights[:, row, column, None], targets[:, row, column], height * width
      )
  return result.numpy().T.reshape(shares.shape)
