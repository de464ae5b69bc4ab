"""The files of `input_path`: file names, or patterns, also in directories with special characters.

Model Garden splits `input_path` at each comma and takes *, ? and [...] for patterns everywhere in a
path. Here, what exists with exactly that name is taken literally: a file, or the directories of a
pattern. Only the rest is split and expanded.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from official.core import config_definitions, input_reader

from sasa_tf.compat.glob_free_paths import escape_glob, glob_free_path
from sasa_tf.errors import UserError

# Of TFRecord files, by Model Garden's `file_type`.
COMPRESSIONS = {"tfrecord": "", "tfrecord_compressed": "GZIP"}
# What Model Garden does not take literally in the name of a file.
_SPECIAL = "*?,"
# Commas in the name of one file or pattern; bounds the number of names to look for.
_MAX_COMMAS = 8


def match_patterns(input_path: str | Sequence[str]) -> dict[str, list[str]]:
  """Returns {name or pattern: files that match, [] if there are none}.

  Args:
    input_path: names and patterns, in a list or separated by commas.

  Raises:
    UserError: TensorFlow has no file system for an address.
  """
  found: dict[str, list[str]] = {}
  for text in [input_path] if isinstance(input_path, str) else input_path:
    parts = text.split(",")
    while parts:
      for count in range(min(len(parts), _MAX_COMMAS + 1), 0, -1):
        pattern = ",".join(parts[:count]).strip()
        files = _match(pattern) if pattern else []
        if files or count == 1:
          break
      if pattern:
        found[pattern] = files
      parts = parts[count:]
  return found


def find_input_files(input_path: str | Sequence[str]) -> list[str]:
  """Returns the files of all names and patterns, see `match_patterns`."""
  return [file for files in match_patterns(input_path).values() for file in files]


def literal_paths(files: Sequence[str]) -> list[str]:
  """Returns paths of the same files that Model Garden takes literally."""
  return [glob_free_path(file, _SPECIAL) for file in files]


def with_literal_paths(task: config_definitions.TaskConfig) -> config_definitions.TaskConfig:
  """Returns the task with data that Model Garden finds where `input_path` has special characters.

  The data of other tasks is unchanged.
  """
  changes = {}
  for name in ("train_data", "validation_data"):
    data = getattr(task, name)
    if is_files(data) and (files := sorted(find_input_files(data.input_path))) != _found(data):
      changes[name] = data.replace(input_path=literal_paths(files))
  return task.replace(**changes) if changes else task


def is_files(data: config_definitions.DataConfig) -> bool:
  """Returns whether the data is in files, not in weighted sources or TensorFlow Datasets."""
  return bool(data.input_path) and isinstance(data.input_path, (str, list, tuple))


def _found(data: config_definitions.DataConfig) -> list[str]:
  """Returns the files that Model Garden finds, sorted."""
  try:
    return sorted(input_reader.match_files(data.input_path))
  except ValueError:  # no file matches
    return []


def _match(pattern: str) -> list[str]:
  try:
    if tf.io.gfile.exists(pattern):
      return [pattern]
    return tf.io.gfile.glob(_escape_existing_directories(pattern))
  except tf.errors.UnimplementedError as error:
    raise UserError(
      f"input_path={pattern}: TensorFlow has no file system for this address. Copy the files to a "
      "local directory and set its path."
    ) from error


def _escape_existing_directories(pattern: str) -> str:
  """Returns the pattern in which the directories that exist are taken literally."""
  *directories, name = pattern.split("/")
  prefix, escaped, exists = "", [], True
  for directory in directories:
    prefix += f"{directory}/"
    literal = escape_glob(directory)
    if literal != directory:
      exists = exists and tf.io.gfile.isdir(prefix)
    escaped.append(literal if exists else directory)
  return "/".join([*escaped, name])
