"""Writes a SavedModel for inference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from official.vision.serving import export_base


def save(
  path: str | os.PathLike, module: export_base.ExportModule, signatures: Mapping[str, Any]
) -> None:
  """Writes the weights and signatures of an export module, without gradients.

  Args:
    path: directory to create; may exist and be empty.
    module: export module that owns the weights of the signatures.
    signatures: concrete functions by name.
  """
  # Saving the Keras model itself would also write the functions of each layer.
  servable = tf.Module()
  servable.weights = module.model.variables
  tf.saved_model.save(
    servable,
    os.fspath(path),
    signatures=dict(signatures),
    # Saved gradients would double the size of the graph.
    options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
  )
