"""Writes the files of a preset."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

import sasa_tf
from sasa_tf.errors import UserError
from sasa_tf.modeling.presets.preset import CONFIG_FILE, MODEL_CARD, WEIGHTS_FILE

StoredDtype = Literal["float32", "float16"]


def write_preset(
  preset_dir: str | os.PathLike,
  *,
  class_name: str,
  config: Mapping[str, Any],
  weights: Mapping[str, np.ndarray],
  labels: Sequence[str] | None,
  preprocessing: Mapping[str, Any],
  dtype: StoredDtype = "float32",
  model_card: str | None = None,
) -> None:
  """Writes a preset, see `Preset` for its attributes.

  Args:
    preset_dir: directory to create, an empty one, or that of a preset to replace.
    class_name: of the model.
    config: what the model is built from, as JSON values.
    weights: {name: value}.
    labels: class names in the order of the labels; None if they are unknown.
    preprocessing: of the images, as JSON values.
    dtype: of the stored weights; float16 halves the size of the file.
    model_card: text of README.md.

  Raises:
    UserError: the directory exists and holds other files than a preset.
  """
  directory = pathlib.Path(preset_dir)
  if directory.exists() and not (directory / CONFIG_FILE).is_file() and any(directory.iterdir()):
    raise UserError(
      f"preset_dir={os.fspath(preset_dir)} exists and holds no preset. Choose another directory."
    )
  directory.mkdir(parents=True, exist_ok=True)
  content = {
    "class_name": class_name,
    "config": config,
    "labels": None if labels is None else list(labels),
    "preprocessing": preprocessing,
    "sasa_tf_version": sasa_tf.__version__,
  }
  arrays: Any = {name: value.astype(dtype) for name, value in weights.items()}
  np.savez_compressed(directory / WEIGHTS_FILE, **arrays)
  (directory / CONFIG_FILE).write_text(json.dumps(content, indent=1) + "\n")
  if model_card is not None:
    (directory / MODEL_CARD).write_text(model_card, encoding="utf-8")
