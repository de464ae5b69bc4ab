"""Keras 3's own format: a .keras file of the classes of sasa_tf.keras."""

from __future__ import annotations

import pathlib
import shutil
import zipfile
from typing import TYPE_CHECKING

from sasa_tf.serving.formats.associated_files import append_associated_files
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions

if TYPE_CHECKING:
  from official.vision.serving import export_base


def write(module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions) -> None:
  """Writes the trained model as a Keras 3 model, see `keras_model.build_keras_model`.

  The archive also holds labels.txt and model_metadata.json, which Keras ignores.

  Args:
    module: export module with restored weights.
    path: file to create.
    options: of the export.

  Raises:
    UserError: the model has parts that are not of this library.
  """
  from sasa_tf.serving.keras_model import build_keras_model

  model = build_keras_model(module.params, module.model, tuple(module.prepared_size))
  # Keras requires the suffix.
  named = path.with_name(f"{path.name}.keras")
  try:
    model.save(named)
    shutil.copyfile(named, path)  # a rename would take away the file that is locked
  finally:
    named.unlink(missing_ok=True)
  append_associated_files(path, options.metadata)


def _is_keras_archive(path: pathlib.Path) -> bool:
  try:
    with zipfile.ZipFile(path) as archive:
      return {"config.json", "model.weights.h5"} <= set(archive.namelist())
  except (OSError, zipfile.BadZipFile):
    return False


FORMAT = ExportFormat(
  name="keras",
  file_name="model.keras",
  write=write,
  description="Keras 3 model, to be loaded after `import sasa_tf.keras`",
  is_own=_is_keras_archive,
)
