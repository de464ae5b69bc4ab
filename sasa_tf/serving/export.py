"""Writes a trained classification model as a SavedModel, whole or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Sequence

import tensorflow as tf
from official.core import config_definitions, train_utils

from sasa_tf.data import labels
from sasa_tf.errors import UserError
from sasa_tf.serving.client import LABELS
from sasa_tf.serving.image_classification import ClassificationModule

SIGNATURES = ("image_tensor", "image_bytes", "tf_example")


def export_classification(
  params: config_definitions.ExperimentConfig,
  *,
  checkpoint_path: str,
  export_dir: str,
  class_names: Sequence[str] | None,
  input_type: str = "image_tensor",
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  overwrite: bool = False,
) -> None:
  """Exports a checkpoint with one signature for each kind of input.

  Args:
    params: configuration of the training.
    checkpoint_path: checkpoint to read the weights from.
    export_dir: SavedModel directory to make; its parent need not exist.
    class_names: in the order of the labels, for clients that print names; None for none.
    input_type: "image_tensor", "image_bytes" or "tf_example", which `serving_default` takes; the
      others become signatures of their own name.
    batch_size: fixed, or None for any.
    input_image_size: (H, W) of the model; the training's by default.
    overwrite: whether to replace `export_dir`.

  Raises:
    UserError: nothing was written, and why.
  """
  classes = params.task.model.num_classes
  if class_names is not None and len(class_names) != classes:
    raise UserError(
      f"the model has {classes} classes, but there are {len(class_names)} class names. Name the "
      "label file of the training's data with --labels."
    )
  target = pathlib.Path(export_dir)
  if target.exists() and not overwrite:
    raise UserError(f"--export_dir={target} exists. Choose another, or pass --overwrite.")
  module = ClassificationModule(
    params,
    batch_size=batch_size,
    input_image_size=list(input_image_size or params.task.model.input_size[:2]),
    input_type=input_type,
  )
  _restore(module.model, checkpoint_path)
  staged = target.with_name(f".{target.name}.incomplete")
  shutil.rmtree(staged, ignore_errors=True)
  try:
    # Weights and signatures only: saving the Keras model writes each layer's functions as well.
    servable = tf.Module()
    servable.weights = module.model.variables
    tf.saved_model.save(
      servable,
      str(staged),
      signatures=module.get_inference_signatures(
        {name: "serving_default" if name == input_type else name for name in SIGNATURES}
      ),
      # For inference alone; saved gradients would double the graph.
      options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    train_utils.serialize_config(params, str(staged))
    if class_names is not None:
      (staged / LABELS).parent.mkdir()
      labels.write_labels(staged / LABELS, class_names)
    if target.exists():
      shutil.rmtree(target)
    os.replace(staged, target)
  finally:
    shutil.rmtree(staged, ignore_errors=True)


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
