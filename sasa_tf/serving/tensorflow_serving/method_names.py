"""Methods of signatures: TensorFlow saves each signature for the method `predict`."""

from __future__ import annotations

import os
from collections.abc import Mapping

import tensorflow as tf

from sasa_tf.compat.saved_model_fingerprint import write_fingerprint


def set_method_names(saved_model: str | os.PathLike, methods: Mapping[str, str]) -> None:
  """Changes the methods of signatures in a SavedModel.

  Args:
    saved_model: SavedModel directory.
    methods: {name of a signature: method, for example `tf.saved_model.CLASSIFY_METHOD_NAME`}.
  """
  updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(os.fspath(saved_model))
  for signature, method in methods.items():
    updater.replace_method_name(signature, method, tags="serve")
  updater.save()
  write_fingerprint(os.fspath(saved_model))
