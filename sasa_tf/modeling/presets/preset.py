"""The files of a preset, and the presets that are part of this package."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import sasa_tf
from sasa_tf.errors import UserError, did_you_mean

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.npz"
MODEL_CARD = "README.md"

_DIRECTORY = pathlib.Path(sasa_tf.__file__).parent / "presets"
# What NumPy raises for files of other content.
_INVALID_FILE_ERRORS = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  OSError,
  RuntimeError,  # encrypted
  SyntaxError,
  TypeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
)
_KEYS = {"class_name": str, "config": dict, "labels": list | None, "preprocessing": dict}


@dataclasses.dataclass(frozen=True)
class Preset:
  """A preset on disk.

  Attributes:
    path: its directory.
    class_name: of the model: "SASAResNet", "SASAResNetClassifier" or "RetinaNet".
    config: arguments of the model's constructor. Detectors: Model Garden's configuration of the
      model, without the parts that are not used.
    labels: class names in the order of the labels; None if they are unknown.
    preprocessing: "image_size" (H, W) of the input. Classifiers: "crop_fraction", the part of the
      image's shorter side that is cropped from its center and resized, or None for the whole image.
  """

  path: pathlib.Path
  class_name: str
  config: dict[str, Any]
  labels: tuple[str, ...] | None
  preprocessing: dict[str, Any]

  def read_weights(self) -> dict[str, np.ndarray]:
    """Returns {"layer/weight": value}.

    Raises:
      UserError: the file is missing or cannot be read.
    """
    path = self.path / WEIGHTS_FILE
    try:
      if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is a directory, a pipe or a device")
      if os.path.exists(path) and not zipfile.is_zipfile(path):
        raise ValueError("it is not a complete archive of NumPy")
      with np.load(path, allow_pickle=False) as arrays:
        weights = {name: arrays[name] for name in arrays.files}
      others = [name for name, value in weights.items() if value.dtype.kind != "f"]
      if others:
        raise ValueError(f"{others[0]} holds no floating-point numbers")
      return weights
    except _INVALID_FILE_ERRORS as error:
      raise UserError(
        f"{path} cannot be read ({type(error).__name__}: {error}). A preset holds the arrays of "
        "its model there; save it again with save_to_preset."
      ) from error


def packaged_presets() -> tuple[str, ...]:
  """Returns the names of the presets that are part of this package."""
  return tuple(sorted(path.parent.name for path in _DIRECTORY.glob(f"*/{CONFIG_FILE}")))


def find_preset(preset: str | os.PathLike) -> Preset:
  """Returns a preset by its name or its directory.

  Args:
    preset: the name of a packaged preset, or a directory that `save_to_preset` wrote.

  Raises:
    UserError: there is no such preset, or it is invalid.
  """
  name = os.fspath(preset)
  directory = _DIRECTORY / name if name in packaged_presets() else pathlib.Path(name)
  path = directory / CONFIG_FILE
  if not os.path.isfile(path):
    known = packaged_presets()
    hint = f" {did_you_mean(name, known)}" if known else ""
    if os.path.isfile(directory / "params.yaml"):
      hint = (
        f" It is the directory of a training: write a preset of it with `python -m "
        f"sasa_tf.bin.export --model_dir={name} --format=preset`."
      )
    raise UserError(
      f"{name!r} is neither a preset of this package nor a directory with {CONFIG_FILE}.{hint}"
    )
  try:
    content = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"{path} cannot be read: {error}. Save the preset again.") from error
  wrong = [
    key
    for key, kind in _KEYS.items()
    if not isinstance(content, Mapping) or key not in content or not isinstance(content[key], kind)
  ]
  if wrong:
    raise UserError(
      f"{path} is not the configuration of a preset: {', '.join(wrong)} missing or of another "
      "type. Save the preset again with save_to_preset."
    )
  labels = content["labels"]
  return Preset(
    directory,
    content["class_name"],
    content["config"],
    None if labels is None else tuple(map(str, labels)),
    content["preprocessing"],
  )
