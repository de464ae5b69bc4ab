"""What the page shows of one image: the encoded image, its predictions, windows and rollout."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from sasa_tf.analysis.attention import LayerMaps, attention_maps, attention_rollout
from sasa_tf.analysis.attention.prepared_image import PreparedImage
from sasa_tf.analysis.explorer.encoding import compress, quantize
from sasa_tf.errors import UserError

if TYPE_CHECKING:  # imports Model Garden
  from sasa_tf.analysis.attention.trained_model import TrainedModel

TOP_K = 3
MAX_DETECTIONS = 40
# Sizes of the query grids, from the finest; the first one that fits the budget is used.
GRIDS = (28, 20, 14, 10, 7, 4)
# Output pixels with a rollout, and pixels of its map, both along one axis.
_ROLLOUT_PIXELS, _ROLLOUT_MAP = 14, 64


def grid_within(maps: dict[str, LayerMaps], max_bytes: float) -> int:
  """Returns the size of the query grid whose windows take at most so many bytes for an image."""

  def window_bytes(grid: int) -> int:
    return sum(
      int(np.prod([min(size, grid) for size in layer.geometry.size]))
      * layer.geometry.num_heads
      * int(np.prod(layer.geometry.kernel_size))
      for layer in maps.values()
    )

  return next((grid for grid in GRIDS if window_bytes(grid) <= max_bytes), GRIDS[-1])


def image_data(
  trained: TrainedModel, image: PreparedImage, grid: int, score_threshold: float
) -> dict[str, Any]:
  """Returns the data of one image, JSON values with compressed bytes.

  Args:
    trained: the model.
    image: the image.
    grid: size of the query grid.
    score_threshold: minimum score of a detection.
  """
  maps = attention_maps(trained.model, image.inputs, max_grid=grid)
  contents = [quantize(layer.weights[0]) for layer in maps.values()]
  data = {
    "name": image.path.rpartition("/")[2],
    "height": image.pixels.shape[0],
    "width": image.pixels.shape[1],
    "source": _data_url(image.pixels),
    "layers": [_statistics(layer) for layer in maps.values()],
    "predictions": [],
    "detections": [],
    "rollout": None,
  }
  outputs = trained.predict(image)
  if trained.is_detector:
    data["detections"] = _detections(trained, outputs, score_threshold)
  else:
    best = np.argsort(-outputs["probs"], kind="stable")[:TOP_K].tolist()
    data["predictions"] = [
      {"label": trained.name_of(i), "score": _rounded(outputs["probs"][i])} for i in best
    ]
  rollout = _rollout(trained, image)
  if rollout:
    data["rollout"], content = rollout
    contents.append(content)
  data["bytes"] = compress(b"".join(contents))
  return data


def _statistics(layer: LayerMaps) -> dict[str, Any]:
  statistics = layer.statistics
  logits = layer.position_logits
  return {
    "entropy": _rounded(statistics.entropy),
    "distance": _rounded(statistics.distance),
    "imageDistance": _rounded(statistics.image_distance),
    "padding": _rounded(statistics.padding_share),
    "positions": None if logits is None else _rounded(logits),
  }


def _detections(
  trained: TrainedModel, outputs: dict[str, np.ndarray], score_threshold: float
) -> list[dict[str, Any]]:
  found = [
    {
      "label": trained.name_of(int(outputs["detection_classes"][i])),
      "score": _rounded(outputs["detection_scores"][i]),
      "box": _rounded(outputs["detection_boxes"][i]),  # top, left, bottom, right
    }
    for i in range(int(outputs["num_detections"]))
    if outputs["detection_scores"][i] >= score_threshold
  ]
  return found[:MAX_DETECTIONS]


def _rollout(trained: TrainedModel, image: PreparedImage) -> tuple[dict[str, Any], bytes] | None:
  """Returns the description and the bytes of the rollout, or None if the model has none."""
  try:
    rollout = attention_rollout(trained.model, image.inputs)
  except UserError:  # the layers are no chain, or those of pyramid and head alone
    return None
  size = [int(x) for x in rollout.pixels.max(axis=0) + 1]
  if max(size) > _ROLLOUT_PIXELS:
    return None
  height, width = rollout.shares.shape[2:]
  map_size = [min(_ROLLOUT_MAP, height), min(_ROLLOUT_MAP, width)]
  shares = tf.image.resize(rollout.shares[0][..., None], map_size, "area").numpy()[..., 0]
  description = {"size": size, "mapSize": map_size, "imageSize": [height, width]}
  return description, quantize(shares, levels=255)


def _data_url(pixels: np.ndarray) -> str:
  """Returns an image as PNG if it is small, else as JPEG."""
  small = pixels.shape[0] * pixels.shape[1] <= 64 * 64
  encoded = tf.io.encode_png(pixels) if small else tf.io.encode_jpeg(pixels, quality=92)
  content = base64.b64encode(encoded.numpy()).decode("ascii")
  return f"data:image/{'png' if small else 'jpeg'};base64,{content}"


def _rounded(values: Any) -> Any:
  """Returns numbers as nested lists of floats with 5 digits."""
  array = np.asarray(values, np.float64)
  if array.ndim:
    return [_rounded(value) for value in array]
  return float(f"{float(array):.5g}")
