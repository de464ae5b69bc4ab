"""Writes a trained model as a SavedModel, and for LiteRT, whole or not at all."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import tensorflow as tf
from official.core import config_definitions, train_utils

from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.data import labels
from sasa_tf.errors import UserError
from sasa_tf.serving.detection import DetectionModule
from sasa_tf.serving.image_classification import ClassificationModule
from sasa_tf.serving.litert import litert_model
from sasa_tf.serving.loading import LABELS
from sasa_tf.serving.saved_model import save
from sasa_tf.serving.staging import refuse_existing, staged

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
  """Exports a checkpoint of classification or detection, one signature for each kind of input.

  Args:
    params: configuration of the training; its task decides what is exported.
    checkpoint_path: checkpoint to read the weights from.
    export_dir: SavedModel directory to make; its parent need not exist.
    class_names: in the order of the labels, background first for detection; for clients that print
      names. None for none.
    input_type: "image_tensor", "image_bytes" or "tf_example", which `serving_default` takes; the
      others become signatures of their own name.
    batch_size: fixed, or None for any.
    input_image_size: (H, W) of the model; the training's by default.
    litert: LiteRT file to write too, see `litert_model`; None for none.
    overwrite: whether to replace `export_dir` and `litert`.

  Raises:
    UserError: nothing was written, and why.
  """
  classes = params.task.model.num_classes
  if class_names is not None and len(class_names) != classes:
    raise UserError(
      f"the model has {classes} classes, but there are {len(class_names)} class names. Name the "
      "label file of the training's data with --labels."
    )
  refuse_existing(export_dir, "export_dir", overwrite)
  if litert:
    refuse_existing(litert, "litert", overwrite)
  make = DetectionModule if isinstance(params.task, RetinaNetTask) else ClassificationModule
  module = make(
    params,
    batch_size=batch_size,
    input_image_size=list(input_image_size or params.task.model.input_size[:2]),
    input_type=input_type,
  )
  _restore(module.model, checkpoint_path)
  with staged(pathlib.Path(export_dir)) as directory:
    signatures = {name: "serving_default" if name == input_type else name for name in SIGNATURES}
    save(directory, module, module.get_inference_signatures(signatures))
    train_utils.serialize_config(params, str(directory))
    if class_names is not None:
      (directory / LABELS).parent.mkdir()
      labels.write_labels(directory / LABELS, class_names)
    if litert:
      with staged(pathlib.Path(litert)) as file:
        file.write_bytes(litert_model(module))


def _restore(model: tf.Module, checkpoint_path: str) -> None:
  """Reads every weight of the model, or says which one the checkpoint lacks."""
  try:
    status = tf.train.Checkpoint(model=model).read(checkpoint_path)
    status.expect_partial().assert_existing_objects_matched()
  except (AssertionError, ValueError, tf.errors.OpError) as error:
    raise UserError(
      f"the checkpoint {checkpoint_path} does not hold the weights of this model: "
      f"{str(error).splitlines()[0]}. Use the configuration that it was trained with."
    ) from error
