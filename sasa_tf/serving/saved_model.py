"""Writes weights and signatures as a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from official.vision.serving import export_base


def save(
  path: str | os.PathLike, module: export_base.ExportModule, signatures: Mapping[str, Any]
) -> None:
  """Writes a SavedModel for inference alone.

  Args:
    path: directory to make.
    module: whose weights the signatures use.
    signatures: concrete functions by name.
  """
  # Weights and signatures only: saving the Keras model writes each layer's functions as well.
  servable = tf.Module()
  servable.weights = module.model.variables
  tf.saved_model.save(
    servable,
    os.fspath(path),
    signatures=dict(signatures),
    # Saved gradients would double the graph.
    options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
  )
