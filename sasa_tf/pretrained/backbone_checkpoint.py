"""Writes the backbone of a preset as a checkpoint that Model Garden's trainings start from."""

from __future__ import annotations

import os

import tensorflow as tf

from sasa_tf import extras


def write_backbone_checkpoint(preset: str | os.PathLike, path: str) -> None:
  """Writes a checkpoint for `task.init_checkpoint` with `init_checkpoint_modules=backbone`.

  Args:
    preset: directory of a preset of `SASAResNet` or `SASAResNetClassifier`.
    path: of the checkpoint, without suffix.

  Raises:
    MissingExtraError: tf_keras, which Model Garden uses, is not installed.
  """
  extras.require("a checkpoint for Model Garden", "tf_keras")
  from sasa_tf.tf_keras import SASAResNet

  tf.train.Checkpoint(backbone=SASAResNet.from_preset(preset)).write(path)
