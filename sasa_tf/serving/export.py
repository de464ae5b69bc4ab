"""Exports a trained model as a SavedModel and, optionally, as a LiteRT file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
from official.core import config_definitions, train_utils

from sasa_tf.compat.glob_free_paths import glob_free_path, original_paths
from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.data import labels
from sasa_tf.errors import UserError
from sasa_tf.modeling.builders.build_errors import model_errors
from sasa_tf.ops import tracing_for_export
from sasa_tf.outputs.replacement import replace_directory, replace_file
from sasa_tf.serving.export_paths import LABELS, SAVED_MODEL, ExportPaths, check_export_paths
from sasa_tf.serving.litert import convert_to_litert
from sasa_tf.serving.modules.classification_module import ClassificationModule
from sasa_tf.serving.modules.detection_module import DetectionModule
from sasa_tf.serving.saved_model import save

SIGNATURES = ("image_tensor", "image_bytes", "tf_example")


def export_model(
  params: config_definitions.ExperimentConfig,
  *,
  checkpoint_path: str,
  export_dir: str,
  class_names: Sequence[str] | None,
  input_type: str = "image_tensor",
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  litert: str | None = None,
  overwrite: bool = False,
) -> None:
  """Exports the checkpoint of a classifier or detector, with one signature per input type.

  Outputs are written atomically: after an error, no partial files remain.

  Args:
    params: experiment configuration of the training. Its task selects the export module.
    checkpoint_path: checkpoint to restore the weights from.
    export_dir: SavedModel directory to create, with its parents.
    class_names: in label order, with the background first for detectors. Saved with the model
      for clients. None saves no names.
    input_type: input of `serving_default`: "image_tensor", "image_bytes" or "tf_example". The
      other types get signatures with these names.
    batch_size: fixed batch size. None exports a dynamic batch size.
    input_image_size: (H, W) of the model's input. Defaults to that of the training.
    litert: LiteRT file to write, see `convert_to_litert`. None writes none.
    overwrite: whether to replace outputs of an earlier export, see `check_export_paths`.

  Raises:
    UserError: If the model cannot be exported. Nothing is written.
  """
  classes = params.task.model.num_classes
  if class_names is not None and len(class_names) != classes:
    raise UserError(
      f"the model has {classes} classes, but there are {len(class_names)} class names. Pass the "
      "label file of the training data with --labels."
    )
  inputs = {"checkpoint_path": checkpoint_path}
  paths = check_export_paths(export_dir, litert, overwrite=overwrite, inputs=inputs)
  module_class = DetectionModule if isinstance(params.task, RetinaNetTask) else ClassificationModule
  with model_errors(params.task.model):
    module = module_class(
      params,
      batch_size=batch_size,
      input_image_size=list(input_image_size or params.task.model.input_size[:2]),
      input_type=input_type,
    )
  _restore(module.model, checkpoint_path)
  with (
    _translate_write_errors(paths),
    replace_directory(paths.export_dir, SAVED_MODEL) as directory,
  ):
    signatures = {name: "serving_default" if name == input_type else name for name in SIGNATURES}
    with tracing_for_export():
      functions = module.get_inference_signatures(signatures)
    save(directory, module, functions)
    train_utils.serialize_config(params, str(directory))
    if class_names is not None:
      (directory / LABELS).parent.mkdir()
      labels.write_labels(directory / LABELS, class_names)
    if paths.litert:
      with replace_file(paths.litert) as file:
        file.write_bytes(convert_to_litert(module))


@contextlib.contextmanager
def _translate_write_errors(paths: ExportPaths) -> Iterator[None]:
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    problem = getattr(error, "message", None) or str(error)
    raise UserError(
      f"the export cannot be written to {paths.export_dir}: {problem.splitlines()[0]}. An earlier "
      "export there is unchanged. Free disk space, or choose another directory."
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
