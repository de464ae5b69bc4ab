"""Reads model directories: the log and the configuration of each training."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sasa_tf.errors import UserError
from sasa_tf.outputs import plain_yaml
from sasa_tf.outputs.run_log import RUN_LOG_FILE, RunLogSummary, read_run_log

_PARAMS_FILE = "params.yaml"
# A study has OUTPUT/ROW/seedN.
_MAX_DEPTH = 3


@dataclasses.dataclass(frozen=True)
class Run:
  """A training.

  Attributes:
    name: the part of its path that distinguishes it from the other runs.
    directory: its model directory.
    log: its log.
    params: {dotted key: value} of its configuration; {} if there is none that can be read.
  """

  name: str
  directory: pathlib.Path
  log: RunLogSummary
  params: dict[str, Any]


def read_runs(paths: Sequence[str]) -> list[Run]:
  """Returns the trainings in directories, in the order of their paths.

  Args:
    paths: model directories, or directories that contain some.

  Raises:
    UserError: a path is no directory, or holds no log of a training.
  """
  directories: dict[pathlib.Path, None] = {}
  for path in paths:
    found = sorted(_model_directories(pathlib.Path(path), _MAX_DEPTH))
    if not found:
      raise UserError(
        f"{path} holds no training: expected the --model_dir of a training, with {RUN_LOG_FILE}, "
        f"or a directory that contains some{_problem_of(path)}."
      )
    directories |= dict.fromkeys(found)
  names = _distinct_names([*directories])
  runs = [
    Run(name, directory, read_run_log(directory), _read_params(directory / _PARAMS_FILE))
    for directory, name in zip(directories, names, strict=True)
  ]
  if empty := [str(run.directory / RUN_LOG_FILE) for run in runs if not run.log.processes]:
    raise UserError(
      f"{', '.join(empty)}: no training has begun there, or the file is corrupt. Remove the run "
      "from the command."
    )
  return runs


def _model_directories(path: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
  if os.path.isfile(path / RUN_LOG_FILE):
    yield path
  elif depth and os.path.isdir(path):
    try:
      children = list(path.iterdir())
    except OSError:  # of another user
      return
    for child in children:
      yield from _model_directories(child, depth - 1)


def _problem_of(path: str) -> str:
  if os.path.isdir(path):
    return ""
  return "; it is a file" if os.path.exists(path) else "; it does not exist"


def _distinct_names(directories: Sequence[pathlib.Path]) -> list[str]:
  """Returns the paths below their common parent."""
  resolved = [directory.resolve() for directory in directories]
  if len(resolved) == 1:
    return [resolved[0].name]
  common = os.path.commonpath(resolved)
  return [os.path.relpath(path, common) for path in resolved]


def _read_params(path: pathlib.Path) -> dict[str, Any]:
  if not os.path.isfile(path):  # a pipe would be read forever
    return {}
  try:
    content = plain_yaml.parse(path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return {}
  return dict(_flatten(content)) if isinstance(content, Mapping) else {}


def _flatten(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in values.items():
    if isinstance(value, Mapping) and value:
      yield from _flatten(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
