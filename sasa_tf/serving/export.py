"""Exports a trained model to several formats at once."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.compat.glob_free_paths import glob_free_path, original_paths
from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.modeling.builders.build_errors import model_errors
from sasa_tf.outputs.replacement import replace_directory, replace_file
from sasa_tf.serving.export_paths import check_export_paths
from sasa_tf.serving.formats.format import (
  ExportFormat,
  ExportOptions,
  OnnxOptions,
  SavedModelOptions,
)
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.model_description import describe_model
from sasa_tf.serving.modules.classification_module import ClassificationModule
from sasa_tf.serving.modules.detection_module import DetectionModule


def export_model(
  params: config_definitions.ExperimentConfig,
  *,
  checkpoint_path: str,
  outputs: Mapping[str, str | os.PathLike],
  class_names: Sequence[str] | None,
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  saved_model: SavedModelOptions | None = None,
  onnx: OnnxOptions | None = None,
  overwrite: bool = False,
) -> None:
  """Exports the checkpoint of a classifier or detector.

  The outputs get their names when all of them are written: after an error, none is changed, and no
  partial files remain.

  Args:
    params: experiment configuration of the training. Its task selects the export module.
    checkpoint_path: checkpoint to restore the weights from.
    outputs: {name of a format, a key of `FORMATS`: file or directory to create}.
    class_names: in label order, with the background first for detectors. Saved with the model
      for clients. None saves no names.
    batch_size: fixed batch size. None exports a dynamic batch size.
    input_image_size: (H, W) of the model's input. Defaults to that of the training.
    saved_model: options of the SavedModel format.
    onnx: options of the ONNX format.
    overwrite: whether to replace outputs of an earlier export, see `check_export_paths`.

  Raises:
    UserError: the model cannot be exported. Nothing is written.
  """
  saved_model = saved_model or SavedModelOptions()
  paths = check_export_paths(
    outputs, overwrite=overwrite, inputs={"checkpoint_path": checkpoint_path}
  )
  module = restored_module(
    params,
    checkpoint_path,
    batch_size=batch_size,
    input_image_size=input_image_size,
    input_type=saved_model.input_type,
  )
  options = ExportOptions(describe_model(module, class_names), saved_model, onnx or OnnxOptions())
  with contextlib.ExitStack() as stack:
    for name, target in paths.items():
      with _write_errors(target):
        temporary = stack.enter_context(_replacement(FORMATS[name], target))
        FORMATS[name].write(module, temporary, options)


def restored_module(
  params: config_definitions.ExperimentConfig,
  checkpoint_path: str,
  *,
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  input_type: str = "image_tensor",
) -> ClassificationModule | DetectionModule:
  """Returns the export module of a trained model; for arguments see `export_model`.

  Raises:
    UserError: the model cannot be built, or the checkpoint does not hold its weights.
  """
  module = build_module(params, batch_size, input_image_size, input_type)
  _restore(module.model, checkpoint_path)
  return module


def build_module(
  params: config_definitions.ExperimentConfig,
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  input_type: str = "image_tensor",
) -> ClassificationModule | DetectionModule:
  """Returns the export module of a configuration, with initial weights; see `export_model`.

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


def _replacement(
  export_format: ExportFormat, target: pathlib.Path
) -> contextlib.AbstractContextManager[pathlib.Path]:
  """Yields the path to write to, which replaces `target` on success."""
  if export_format.layout is not None:
    return replace_directory(target, export_format.layout)
  return replace_file(target)


@contextlib.contextmanager
def _write_errors(target: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    problem = getattr(error, "message", None) or str(error)
    raise UserError(
      f"the export cannot be written to {target}: {problem.splitlines()[0]}. Earlier exports are "
      "unchanged. Free disk space, or choose another directory."
    ) from error


def _restore(model: tf.Module, checkpoint_path: str) -> None:
  """Restores all weights of the model. Raises `UserError` if the checkpoint lacks one."""
  try:
    status = tf.train.Checkpoint(model=model).read(glob_free_path(checkpoint_path))
    status.expect_partial().assert_existing_objects_matched()
  except (AssertionError, ValueError, tf.errors.OpError) as error:
    raise UserError(
      f"the checkpoint {checkpoint_path} does not hold the weights of this model: "
      f"{original_paths(str(error)).splitlines()[0]}. Use the configuration of its training."
    ) from error
