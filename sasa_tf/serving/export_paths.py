"""The outputs of an export: where they may be written, and which earlier ones are replaced.

Imports no TensorFlow, so that the program checks them before it loads anything.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from sasa_tf.errors import UserError
from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.outputs.path_checks import begins_with, check_directory, check_file

# Class names, relative to the SavedModel. Model servers ignore assets.extra.
LABELS = pathlib.PurePath("assets.extra", "labels.txt")

SAVED_MODEL = DirectoryLayout(
  "a SavedModel of export_saved_model",
  # TensorFlow's SavedModels have no params.yaml.
  required=("saved_model.pb", "params.yaml", "variables/variables.index"),
  files=rf"saved_model\.pb|fingerprint\.pb|params\.yaml|{re.escape(LABELS.as_posix())}|"
  r"variables/variables\.(index|data-\d{5}-of-\d{5})",
  directories=r"variables|assets|assets\.extra",
  temporary=r"variables/variables_temp(/.*)?|[^/]+\.tmp[^/]*|.*\.tempstate\d+",
)
# Identifier in the header of a LiteRT file.
_is_litert = begins_with(b"TFL3", offset=4)


class ExportPaths(NamedTuple):
  """Checked paths of an export.

  Attributes:
    export_dir: SavedModel directory to create.
    litert: LiteRT file to create, or None.
  """

  export_dir: pathlib.Path
  litert: pathlib.Path | None


def check_export_paths(
  export_dir: str | os.PathLike,
  litert: str | os.PathLike | None = None,
  *,
  overwrite: bool = False,
  inputs: Mapping[str, str | None] | None = None,
) -> ExportPaths:
  """Checks that the outputs of an export can be written and are no loss.

  An existing directory is replaced only if it holds a SavedModel of this program and nothing else,
  an existing file only if it is a LiteRT file.

  Args:
    export_dir: SavedModel directory to create.
    litert: LiteRT file to create. None for none.
    overwrite: whether to replace existing outputs.
    inputs: {flag: path} of what the export reads.

  Raises:
    UserError: an output cannot be written, or may not be replaced.
  """
  inputs = inputs or {}
  directory = check_directory(
    export_dir, "export_dir", SAVED_MODEL, overwrite=overwrite, inputs=inputs
  )
  if not litert:
    return ExportPaths(directory, None)
  file = check_file(
    litert, "litert", overwrite=overwrite, is_own=_is_litert, kind="a LiteRT (.tflite) file"
  )
  if directory == file or directory in file.parents or file in directory.parents:
    raise UserError(
      f"--litert={os.fspath(litert)} and --export_dir={os.fspath(export_dir)} overlap, but the "
      "directory is written as a whole. Choose a file beside it, for example "
      f"{directory.with_suffix('.tflite')}."
    )
  return ExportPaths(directory, file)
