"""Trained models of a training, preset or SavedModel, with the preprocessing of the evaluation.

A SavedModel of `export_saved_model` holds the configuration (params.yaml) and the weights in the
order of the model's variables, so that the Keras model is built again and its weights restored. The
functions of the SavedModel do not expose the inputs of the attention layers.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.analysis.attention.prepared_image import PreparedImage
from sasa_tf.compat.glob_free_paths import glob_free_path
from sasa_tf.data import labels
from sasa_tf.data.images.orientation import decode_upright
from sasa_tf.data.inputs.regular_files import find_irregular
from sasa_tf.errors import UserError
from sasa_tf.modeling.presets import find_preset
from sasa_tf.serving.clients.encoded_image_model import read_file
from sasa_tf.serving.formats.saved_model import LABELS, LAYOUT
from sasa_tf.serving.modules.detection_module import DetectionModule
from sasa_tf.serving.modules.normalization import denormalize, normalize
from sasa_tf.serving.restored_module import build_module, restored_module
from sasa_tf.training import checks, experiment, results

# Files of a SavedModel: the configuration, and the weights.
PARAMS_FILE = "params.yaml"
VARIABLES = "variables/variables"


class TrainedModel:
  """A trained classifier or detector.

  Attributes:
    model: the Keras model.
    is_detector: whether it is a detector.
    class_names: names by label, or None.
  """

  def __init__(self, module: Any, class_names: tuple[str, ...] | None):
    """Wraps an export module of a batch of one image."""
    self._module = module
    self.model = module.model
    self.is_detector = isinstance(module, DetectionModule)
    self.class_names = class_names

  @classmethod
  def from_model_dir(cls, model_dir: str, checkpoint_path: str | None = None) -> TrainedModel:
    """Restores the best checkpoint of a training, or the given one.

    Raises:
      UserError: the directory is not that of a training, or has no valid checkpoint.
    """
    params = experiment.load_trained_experiment(model_dir, None, mode="export")
    checkpoint = results.find_checkpoint(checkpoint_path, model_dir, params)
    try:
      class_names = checks.read_class_names(params.task.train_data)
    except UserError:  # the training data was moved
      class_names = None
    _check_names(params, class_names, "labels.txt of the training data")
    return cls(restored_module(params, checkpoint, batch_size=1), class_names)

  @classmethod
  def from_preset(cls, preset: str) -> TrainedModel:
    """Loads a preset.

    Args:
      preset: its name or directory.

    Raises:
      UserError: there is no such preset, or it is invalid.
    """
    found = find_preset(preset)
    params = experiment.load_preset_experiment(found, mode="export")
    _check_names(params, found.labels, f"{found.path}/config.json")
    return cls(restored_module(params, found, batch_size=1), found.labels)

  @classmethod
  def from_saved_model(cls, saved_model: str | os.PathLike) -> TrainedModel:
    """Builds the model of a SavedModel and restores its weights.

    Raises:
      UserError: the directory is not a SavedModel that `export_saved_model` wrote.
    """
    path = pathlib.Path(saved_model)
    missing = [name for name in LAYOUT.required if not (path / name).is_file()]
    if missing:
      raise UserError(
        f"{path} is not a SavedModel of sasa_tf: it has no {missing[0]}. Attention maps need the "
        "configuration and the weights of the model, which other SavedModels do not hold in this "
        "form. Pass one that `python -m sasa_tf.bin.export_saved_model` wrote."
      )
    if irregular := find_irregular(path):
      raise UserError(f"{irregular} is a pipe or a device; expected a file. Copy the model again.")
    config = checks.load_model_config(str(path / PARAMS_FILE))
    name = "retinanet_sasa_coco" if "decoder" in config else "sasa_resnet_imagenet"
    params = experiment.load_experiment(name, [str(path / PARAMS_FILE)], mode="export")
    names = labels.read_labels(path / LABELS) if (path / LABELS).is_file() else None
    _check_names(params, names, str(path / LABELS))
    module = build_module(params, batch_size=1)
    _restore_weights(module.model, path)
    return cls(module, names)

  @staticmethod
  def normalize(images: Any) -> tf.Tensor:
    """Returns the model's input for RGB images [B, H, W, 3] with values from 0 to 255."""
    return normalize(tf.cast(tf.convert_to_tensor(images), tf.float32))

  def read_image(self, path: str) -> PreparedImage:
    """Reads an image file and preprocesses it as in the evaluation.

    Raises:
      UserError: the file cannot be read or decoded.
    """
    encoded = read_file(path)
    try:
      decoded = decode_upright(tf.constant(encoded))
    except tf.errors.InvalidArgumentError as error:
      raise UserError(
        f"{path} cannot be decoded: expected a JPEG, PNG, GIF, BMP or WebP image."
      ) from error
    if not self.is_detector:
      inputs = self._module.prepare(decoded[None])
      size = inputs.shape[1:3]
    else:
      inputs, scales, originals = self._module.prepare(decoded[None])
      size = tf.cast(tf.round(scales[0] * originals[0]), tf.int32).numpy()
    shown = denormalize(inputs)[0, : size[0], : size[1]]
    pixels = tf.cast(tf.round(tf.clip_by_value(shown, 0, 255)), tf.uint8).numpy()
    return PreparedImage(path, pixels, inputs)

  def predict(self, image: PreparedImage) -> dict[str, np.ndarray]:
    """Returns the outputs of the export module; boxes are in pixels of the model's input."""
    outputs = self._module.serve_prepared(denormalize(image.inputs))
    return {name: value[0].numpy() for name, value in outputs.items()}

  def name_of(self, label: int) -> str:
    """Returns the name of a class, or its number."""
    return self.class_names[label] if self.class_names else str(label)


def _check_names(params: Any, names: Sequence[str] | None, source: str) -> None:
  classes = params.task.model.num_classes
  if names is not None and len(names) != classes:
    raise UserError(
      f"{source} has {len(names)} class names, but the model has {classes} classes. Restore the "
      "names that were written with the model."
    )


def _restore_weights(model: Any, path: pathlib.Path) -> None:
  """Restores the weights of a SavedModel, which are listed in the order of `model.variables`."""
  try:
    status = tf.train.Checkpoint(weights=model.variables).read(
      glob_free_path(str(path / VARIABLES))
    )
    status.assert_existing_objects_matched().expect_partial()
  except (AssertionError, LookupError, OSError, ValueError, tf.errors.OpError) as error:
    problem = " ".join(str(error).split())[:200].rstrip(".")
    raise UserError(
      f"{path}: the weights in {VARIABLES} do not fit the model of {PARAMS_FILE}: {problem}. "
      "Export the model again with this version of sasa_tf."
    ) from error
