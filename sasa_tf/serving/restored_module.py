"""Builds the export module of a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.compat import checkpoint_objects
from sasa_tf.compat.glob_free_paths import glob_free_path, original_paths
from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.modeling.builders.build_errors import model_errors
from sasa_tf.modeling.presets import Preset
from sasa_tf.modeling.weights import assign_named
from sasa_tf.serving.modules.classification_module import ClassificationModule
from sasa_tf.serving.modules.detection_module import DetectionModule
from sasa_tf.serving.named_variables import named_variables


def restored_module(
  params: config_definitions.ExperimentConfig,
  weights: str | Preset,
  *,
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  input_type: str = "image_tensor",
) -> ClassificationModule | DetectionModule:
  """Returns the export module of a trained model.

  Args:
    params: experiment configuration of the training. Its task selects the export module.
    weights: checkpoint to restore, or a preset.
    batch_size: fixed batch size. None for a dynamic batch size.
    input_image_size: (H, W) of the model's input. Defaults to that of the training.
    input_type: of a SavedModel's `serving_default`.

  Raises:
    UserError: the model cannot be built, or the checkpoint or preset does not hold its weights.
  """
  module = build_module(params, batch_size, input_image_size, input_type)
  if isinstance(weights, Preset):
    _assign(module.model, weights)
  else:
    _restore(module.model, weights)
  return module


def build_module(
  params: config_definitions.ExperimentConfig,
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  input_type: str = "image_tensor",
) -> ClassificationModule | DetectionModule:
  """Returns the export module of a configuration, with initial weights; see `restored_module`.

  Raises:
    UserError: the model cannot be built.
  """
  module_class = DetectionModule if isinstance(params.task, RetinaNetTask) else ClassificationModule
  with model_errors(params.task.model):
    return module_class(
      params,
      batch_size=batch_size,
      input_image_size=list(input_image_size or params.task.model.input_size[:2]),
      input_type=input_type,
    )


def _assign(model: tf.Module, preset: Preset) -> None:
  """Assigns the weights of a preset. Raises `UserError` if they do not fit."""
  try:
    assign_named(named_variables(model), preset.read_weights(), model.name)
  except ValueError as error:
    raise UserError(f"{preset.path}: {error}") from error


def _restore(model: tf.Module, checkpoint_path: str) -> None:
  """Restores all weights of the model. Raises `UserError` if the checkpoint lacks one.

  The variables are compared first: TensorFlow logs a warning for each one that does not fit.
  """
  try:
    path = glob_free_path(checkpoint_path)
    found = checkpoint_objects.mismatches(path, {"model": model})
    problem = checkpoint_objects.describe(found)
    if not found:
      tf.train.Checkpoint(model=model).read(path).expect_partial()
      return
  except (LookupError, RuntimeError, ValueError, tf.errors.OpError) as error:
    problem = original_paths(str(getattr(error, "message", error))).splitlines()[0]
  raise UserError(
    f"the checkpoint {checkpoint_path} does not hold the weights of this model: "
    f"{problem.rstrip('.')}. Use the configuration of its training."
  )
