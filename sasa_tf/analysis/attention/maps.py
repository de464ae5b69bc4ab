"""Attention maps of a model: the windows of chosen pixels in each layer, and their statistics."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf.analysis.attention.geometry import MapGeometry
from sasa_tf.analysis.attention.layer_inputs import AttentionCall, attention_calls, attention_names
from sasa_tf.analysis.attention.positions import position_logits, relative_embeddings
from sasa_tf.analysis.attention.statistics import WindowStatistics
from sasa_tf.analysis.attention.windows import window_weights
from sasa_tf.analysis.model_parts import model_parts
from sasa_tf.errors import UserError, did_you_mean

# Without chosen pixels, a grid of at most so many rows and columns of each layer is used.
MAX_GRID = 16


@dataclasses.dataclass(frozen=True)
class LayerMaps:
  """The maps of one attention layer, or of one call of a shared layer.

  Attributes:
    name: of the layer; later calls of a shared layer have the suffix ":2", ":3", ...
    geometry: of its windows in the image.
    pixels: int [P, 2], the queries: (row, column) of the layer's input.
    weights: float32 [B, P, N, K, K], softmax weights of their windows.
    statistics: of each head, over images and queries.
    relative_embeddings: float32 [K, K, D] of each offset, or None, see `relative_embeddings`.
    position_logits: float32 [N, K, K] of the mean query, or None, see `position_logits`.
  """

  name: str
  geometry: MapGeometry
  pixels: np.ndarray
  weights: np.ndarray
  statistics: WindowStatistics
  relative_embeddings: np.ndarray | None
  position_logits: np.ndarray | None


def attention_maps(
  model: Any,
  images: Any,
  layers: Sequence[str] | None = None,
  pixels: Any = None,
  *,
  max_grid: int = MAX_GRID,
) -> dict[str, LayerMaps]:
  """Returns what chosen pixels attend to in each attention layer of a model.

  The windows of the chosen pixels alone are computed, layer by layer, so that the memory is that
  of a forward pass plus the returned arrays.

  Examples:
    >>> model = sasa_tf.keras.SASAResNetClassifier(26, num_classes=10, input_shape=(64, 64, 3))
    >>> maps = attention_maps(model, images, layers=["group3_*"], pixels=[(32, 32)])
    >>> maps["group3_block1_spatial"].weights.shape  # [B, P, N, K, K]
    (1, 1, 8, 7, 7)

  Args:
    model: a functional or built sequential model of Keras 3 or tf_keras, possibly with nested
      models; a detector with `backbone`, `decoder` and `head`, such as Model Garden's
      `RetinaNetModel`; or the path of a SavedModel that `export_saved_model` wrote.
    images: [B, H, W, C], as the model takes them. For a SavedModel: RGB values from 0 to 255.
    layers: names of layers, in which "*" stands for any characters; None for all.
    pixels: int [P, 2], (row, column) of the queries in the image. A layer of lower resolution uses
      its pixel that covers them. None for a regular grid of at most max_grid x max_grid pixels of
      each layer.
    max_grid: see `pixels`.

  Returns:
    {name of the layer: its maps}, in an order of execution.

  Raises:
    UserError: the model has no attention layer, a layer is unknown, a pixel is outside of the
      image, or the images do not fit the model.
  """
  if isinstance(model, (str, os.PathLike)):
    from sasa_tf.analysis.attention.trained_model import TrainedModel

    trained = TrainedModel.from_saved_model(model)
    check_images(trained.model, images)
    model, images = trained.model, trained.normalize(images)
  names = _selected(attention_names(model), layers)
  images = check_images(model, images)
  image_size = tuple(images.shape[1:3])
  queries = None if pixels is None else _checked_pixels(pixels, image_size)
  result = {}
  for call in attention_calls(model, images):
    if call.name in names:
      geometry = MapGeometry.of(call.layer, tuple(call.inputs.shape[1:3]), image_size)
      chosen = geometry.grid(max_grid) if queries is None else geometry.layer_pixels(queries)
      result[call.name] = _layer_maps(call, geometry, chosen)
  return result


def _layer_maps(call: AttentionCall, geometry: MapGeometry, pixels: np.ndarray) -> LayerMaps:
  weights = window_weights(call.layer, call.inputs, pixels)
  return LayerMaps(
    call.name,
    geometry,
    pixels,
    weights,
    WindowStatistics.of(weights, pixels, geometry),
    relative_embeddings(call.layer),
    position_logits(call.layer, call.inputs),
  )


def check_images(model: Any, images: Any) -> tf.Tensor:
  """Returns the images as a tensor that fits the model's input.

  Raises:
    UserError: they do not fit.
  """
  expected = [None, *tuple(model_parts(model)[0].inputs[0].shape)[1:]]
  images = tf.convert_to_tensor(images)
  if not images.dtype.is_floating:
    images = tf.cast(images, tf.float32)
  if not images.shape.is_compatible_with(expected) or 0 in images.shape:
    raise UserError(
      f"images must have the shape {expected} (batch, height, width, channels) of the input of "
      f"{model.name!r}; received {images.shape.as_list()}. Resize them, or convert them to "
      f"{expected[-1]} channels."
    )
  return images


def _selected(names: list[str], layers: Sequence[str] | None) -> set[str]:
  if layers is None:
    return set(names)
  if isinstance(layers, str):
    layers = [layers]
  selected = set()
  for pattern in layers:
    found = fnmatch.filter(names, pattern)
    if not found:
      raise UserError(
        f"the model has no attention layer {pattern!r}. {did_you_mean(pattern, names)}"
      )
    selected.update(found)
  return selected


def _checked_pixels(pixels: Any, image_size: tuple[int, int]) -> np.ndarray:
  array = np.asarray(pixels)
  if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
    raise UserError(
      "pixels must be integers of shape [P, 2], the (row, column) of each query in the image; "
      f"received {pixels!r}."
    )
  outside = array[np.any((array < 0) | (array >= np.array(image_size)), axis=1)]
  if len(outside):
    raise UserError(
      f"pixels must be inside of the image of {image_size[0]} x {image_size[1]} pixels (rows x "
      f"columns), counted from 0; received {outside[:4].tolist()}."
    )
  return array
