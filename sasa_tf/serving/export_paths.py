"""The outputs of an export: where they may be written, and which earlier ones are replaced.

Imports no TensorFlow, so that the program checks them before it loads anything.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterable, Mapping

from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import begins_with, check_directory, check_file, check_local_path
from sasa_tf.serving.formats.format import ExportFormat
from sasa_tf.serving.formats.registry import FORMATS

CARD_NAME = "model_card.md"
# First lines of a card: front matter as that of model cards elsewhere.
CARD_HEADER = b"---\nlibrary_name: sasa_tf\n"


def paths_in(
  output_dir: str | os.PathLike, formats: Iterable[ExportFormat]
) -> dict[str, pathlib.Path]:
  """Returns {name of a format: its path in the directory of --output_dir}.

  Args:
    output_dir: may exist, and hold other files.
    formats: of the export.

  Raises:
    UserError: the directory cannot be created, or is a file.
  """
  directory = check_local_path(output_dir, "output_dir")
  if directory.exists() and not directory.is_dir():
    raise UserError(
      f"--output_dir={os.fspath(output_dir)} is a file; expected a directory. Choose another path."
    )
  return {each.name: pathlib.Path(output_dir, each.file_name) for each in formats}


def check_card(output_dir: str | os.PathLike) -> pathlib.Path:
  """Returns the path of the model card, which replaces an earlier one.

  Raises:
    UserError: there is another file of its name.
  """
  path = pathlib.Path(output_dir, CARD_NAME)
  check_file(
    path, "", overwrite=True, is_own=begins_with(CARD_HEADER), kind="a model card of sasa_tf"
  )
  return path


def next_version(directory: str | os.PathLike) -> pathlib.Path:
  """Returns the path of the next version of a SavedModel: DIRECTORY/1, DIRECTORY/2, ...

  Args:
    directory: of all versions; may be missing.

  Raises:
    UserError: the directory is itself a SavedModel.
  """
  path = pathlib.Path(directory)
  if (path / "saved_model.pb").exists():
    raise UserError(
      f"{path} is a SavedModel, not a directory of versions, which --versioned needs. Choose "
      "another directory, or move the SavedModel to a number below it."
    )
  numbers = [int(each.name) for each in path.glob("*") if each.name.isdecimal()]
  return path / str(max(numbers, default=0) + 1)


def check_export_paths(
  outputs: Mapping[str, str | os.PathLike],
  *,
  flags: Mapping[str, str] | None = None,
  overwrite: bool = False,
  inputs: Mapping[str, str | None] | None = None,
) -> dict[str, pathlib.Path]:
  """Checks that the outputs of an export can be written and are no loss.

  An existing directory is replaced only if it holds an export of its format and nothing else, an
  existing file only if it is of its format.

  Args:
    outputs: {name of a format: file or directory to create}.
    flags: {name of a format: flag with the path, for messages}.
    overwrite: whether to replace existing outputs.
    inputs: {flag: path} of what the export reads.

  Returns:
    {name of a format: resolved path}.

  Raises:
    UserError: an output cannot be written, or may not be replaced.
  """
  flags = flags or {}
  checked = {}
  for name, path in outputs.items():
    export_format, flag = FORMATS[name], flags.get(name, "")
    if export_format.layout is not None:
      checked[name] = check_directory(
        path, flag, export_format.layout, overwrite=overwrite, inputs=inputs or {}
      )
    else:
      checked[name] = check_file(
        path,
        flag,
        overwrite=overwrite,
        is_own=export_format.is_own,
        kind=f"a file of the format {name}",
      )
  for first, second in itertools.combinations(checked, 2):
    if _overlap(checked[first], checked[second]):
      raise UserError(
        f"the outputs {os.fspath(outputs[first])} ({first}) and {os.fspath(outputs[second])} "
        f"({second}) overlap, but each is written as a whole. Choose paths beside each other."
      )
  return checked


def _overlap(first: pathlib.Path, second: pathlib.Path) -> bool:
  return first == second or first in second.parents or second in first.parents
