"""Collects what the page shows, and writes the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sasa_tf.analysis.attention import LayerMaps, MapGeometry, attention_maps
from sasa_tf.analysis.explorer.html_page import render_page
from sasa_tf.analysis.explorer.image_data import grid_within, image_data
from sasa_tf.analysis.explorer.layer_labels import label_of
from sasa_tf.outputs.path_checks import check_file
from sasa_tf.outputs.whole_files import write_file

if TYPE_CHECKING:  # imports Model Garden
  from sasa_tf.analysis.attention.trained_model import TrainedModel

SCORE_THRESHOLD = 0.35
# Windows of all images before compression, which makes up for base64: pages stay below 10 MB.
MAX_BYTES = 9e6


def write_report(
  trained: TrainedModel,
  images: Sequence[str],
  output: str,
  *,
  title: str,
  score_threshold: float = SCORE_THRESHOLD,
  on_image: Callable[[str], None] = lambda path: None,
) -> None:
  """Writes the page for some image files.

  Args:
    trained: the model.
    images: paths of the images.
    output: HTML file to write.
    title: names the model on the page.
    score_threshold: minimum score of a detection.
    on_image: called with the path of each image before it is analyzed.

  Raises:
    UserError: an image cannot be read, the file cannot be written, or the model has no attention.
  """
  target = check_file(output, "output", overwrite=True, is_own=_is_page, kind="an attention page")
  prepared = [trained.read_image(path) for path in images]
  layers = attention_maps(trained.model, prepared[0].inputs, max_grid=1)
  grid = grid_within(layers, MAX_BYTES / len(prepared))
  data: dict[str, Any] = {
    "title": title,
    "isDetector": trained.is_detector,
    "layers": [_layer(name, layer, grid) for name, layer in layers.items()],
    "images": [],
  }
  for image in prepared:
    on_image(image.path)
    data["images"].append(image_data(trained, image, grid, score_threshold))
  write_file(target, render_page(data))


def _layer(name: str, layer: LayerMaps, grid: int) -> dict[str, Any]:
  """Returns what is common to all images."""
  geometry: MapGeometry = layer.geometry
  rows, columns = geometry.grid_axes(grid)
  return {
    "name": name,
    "label": label_of(name),
    "size": list(geometry.size),
    "stride": [float(stride) for stride in geometry.stride],
    "kernel": list(geometry.kernel_size),
    "dilation": list(geometry.dilation_rate),
    "heads": geometry.num_heads,
    "isBlock": geometry.is_block,
    "rows": rows.tolist(),
    "columns": columns.tolist(),
    "maxEntropy": layer.statistics.max_entropy,
  }


def _is_page(path: os.PathLike) -> bool:
  """Returns whether a file is a page of this program."""
  with open(path, "rb") as file:
    return b'<meta name="generator" content="sasa_tf attention_maps">' in file.read(4096)
