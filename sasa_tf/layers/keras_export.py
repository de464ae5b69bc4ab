"""Marks what Keras's exporters trace as traced for export."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from sasa_tf.ops import tracing_for_export


def mark_exports(keras: ModuleType) -> None:
  """Makes the exporters of a Keras version run in `sasa_tf.ops.tracing_for_export()`.

  `Model.export` and `ExportArchive.write_out` trace the model before they call
  `tf.saved_model.save`, outside TensorFlow's save context. The model is often a `keras.Model` that
  holds layers of this library, so overriding `export` in our own classes would not be enough.

  Args:
    keras: Keras 3 or tf_keras. Nothing happens if it has been marked before.
  """
  # In Keras 3 `ExportArchive()` may return an instance of another class.
  archive_class = type(keras.export.ExportArchive())
  for owner, name in ((keras.Model, "export"), (archive_class, "write_out")):
    method = getattr(owner, name)
    if not hasattr(method, "_traces_for_export"):
      setattr(owner, name, _in_export_context(method))


def _in_export_context(method: Any) -> Any:
  @functools.wraps(method)
  def export(*args, **kwargs):
    with tracing_for_export():
      return method(*args, **kwargs)

  vars(export)["_traces_for_export"] = True
  return export
