"""Finds the checkpoint to export of a finished run, and prints a summary of the run."""

from __future__ import annotations

import os
import shlex

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.configs.image_classification import ImageClassificationTask
from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.training.resilience import checkpoints

# Model Garden's directory of averaged weights.
EMA_DIRECTORY = "ema_checkpoints"


def best_checkpoint(model_dir: str, params: config_definitions.ExperimentConfig) -> str | None:
  """Returns the checkpoint to export: the best one, else averaged weights, else the last one.

  With an exponential moving average, `ckpt-N` holds the raw weights, while `best_ckpt` and
  `ema_checkpoints` hold the averaged ones that were evaluated. Corrupt checkpoints are skipped and
  reported on standard error.

  Args:
    model_dir: directory of the run.
    params: configuration of the run.

  Raises:
    UserError: there are checkpoints, but none is valid.
  """
  best = params.trainer.best_checkpoint_export_subdir
  directories = [os.path.join(model_dir, best)] if best else []
  if params.trainer.optimizer_config.ema:
    directories.append(os.path.join(model_dir, EMA_DIRECTORY))
  directories.append(model_dir)
  return checkpoints.latest_valid(*directories)


def find_checkpoint(
  checkpoint_path: str | None, model_dir: str | None, params: config_definitions.ExperimentConfig
) -> str:
  """Returns the given checkpoint, or the best one of a run.

  Args:
    checkpoint_path: a checkpoint, or a directory whose latest one is used; None for that of the
      run.
    model_dir: directory of the run.
    params: configuration of the run.

  Raises:
    UserError: there is no checkpoint, or it is corrupt.
  """
  if checkpoint_path and tf.io.gfile.exists(f"{checkpoint_path}.index"):
    problem = checkpoints.find_corruption(checkpoint_path)
    if problem:
      raise UserError(f"{checkpoint_path} is corrupt: {problem}. Use another checkpoint.")
    return checkpoint_path
  directory = checkpoint_path or model_dir
  if not directory:
    raise UserError("expected --checkpoint_path or --model_dir; received neither.")
  found = (
    checkpoints.latest_valid(directory) if checkpoint_path else best_checkpoint(directory, params)
  )
  if found is None:
    raise UserError(
      f"{directory} holds no checkpoint. Set --checkpoint_path to one, or --model_dir to the "
      "directory of a training."
    )
  return found


def print_summary(model_dir: str, params: config_definitions.ExperimentConfig) -> None:
  """Prints the paths of checkpoints and logs, and the next command."""
  lines = [
    f"checkpoint to export  {best_checkpoint(model_dir, params)}",
    f"last checkpoint       {checkpoints.recorded_latest(model_dir)}",
    f"TensorBoard log       {shlex.join(['tensorboard', '--logdir', model_dir])}",
  ]
  if isinstance(params.task, (ImageClassificationTask, RetinaNetTask)):
    flags = [f"--model_dir={model_dir}", f"--output_dir={os.path.join(model_dir, 'exported')}"]
    command = shlex.join(["python", "-m", "sasa_tf.bin.export", *flags])
    lines.append(f"next                  {command}")
  print("", *lines, sep="\n", flush=True)
