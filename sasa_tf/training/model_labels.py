"""The class names in model_dir, so that exports elsewhere have those of the training data."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from sasa_tf.data.labels import read_labels
from sasa_tf.data.tfrecord.output_directory import LABELS_FILE
from sasa_tf.training.checks import find_label_file


def copy(data: Any, model_dir: str) -> None:
  """Copies the label file of the training data to model_dir; does nothing if there is none.

  Args:
    data: configuration of the training data.
    model_dir: directory of the run.
  """
  source = find_label_file(data.input_path)
  if source is not None:
    tf.io.gfile.copy(str(source), os.path.join(model_dir, LABELS_FILE), overwrite=True)


def read(model_dir: str | None) -> tuple[str, ...] | None:
  """Returns the class names in model_dir, or None if there is no label file.

  Raises:
    UserError: the file is broken.
  """
  path = os.path.join(model_dir, LABELS_FILE) if model_dir else ""
  return read_labels(path) if path and os.path.isfile(path) else None
