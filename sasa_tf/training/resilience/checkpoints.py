"""Finds valid checkpoints, and repairs directories after crashes, full disks and failing disks."""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from sasa_tf.compat import checkpoint_objects
from sasa_tf.compat.glob_free_paths import glob_free_path, original_paths
from sasa_tf.errors import UserError

# TensorFlow's file that lists the checkpoints of a directory and names the latest one.
STATE_FILE = "checkpoint"
_INDEX = ".index"
# Name of the optimizer in the checkpoints of Model Garden.
_OPTIMIZER = "optimizer"
# Model Garden's metrics of the best checkpoint.
_BEST_METRICS = "info.json"
# Temporary names of checkpoints that TensorFlow has not finished writing.
_UNFINISHED = re.compile(r".+-\d+_temp$|.+\.tempstate\d+$")


def find_corruption(checkpoint: str) -> str | None:
  """Returns what is wrong with a checkpoint, or None if it is valid.

  Reads every tensor, which verifies its checksum.

  Args:
    checkpoint: path without suffix, for example "runs/digits/ckpt-880".
  """
  directory, name = os.path.split(checkpoint)
  for file in os.listdir(directory or ".") if os.path.isdir(directory or ".") else ():
    path = os.path.join(directory, file)
    if file.startswith(f"{name}.") and _is_irregular(path):
      return f"{path} is a directory, a pipe or a device"
  try:
    reader = tf.train.load_checkpoint(glob_free_path(checkpoint))
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  except (tf.errors.OpError, LookupError, RuntimeError, ValueError) as error:
    return original_paths(str(getattr(error, "message", error))).splitlines()[0]
  return None


def step_of(checkpoint: str) -> int:
  """Returns the step at the end of a checkpoint's name, or -1 if there is none."""
  number = re.search(r"-(\d+)$", checkpoint)
  return int(number[1]) if number else -1


def check_objects(checkpoint: str, objects: Mapping[str, Any], *, train: bool) -> None:
  """Checks that a valid checkpoint is one of this run, which TensorFlow does not require.

  TensorFlow restores what agrees, and the rest keeps its random or initial values.

  Args:
    checkpoint: path without suffix.
    objects: {name: object} that the run saves: the model, the step and the optimizer. The optimizer
      creates its variables in the first step, so that only its presence is checked.
    train: whether the run continues the training.

  Raises:
    UserError: it is of another model, or of another program.
  """
  items = {name: item for name, item in objects.items() if name != _OPTIMIZER}
  try:
    found = checkpoint_objects.mismatches(checkpoint, items)
    problem = checkpoint_objects.describe(found)
    if train and not found and not {*objects} <= checkpoint_objects.item_names(checkpoint):
      problem = f"it holds no {_OPTIMIZER}"
  except (LookupError, ValueError, tf.errors.OpError) as error:
    problem = str(getattr(error, "message", error)).splitlines()[0]
  if problem:
    raise UserError(
      original_paths(
        f"{checkpoint} is not a checkpoint of this training: {problem.rstrip('.')}. Move its files "
        "elsewhere to continue from the checkpoint before it, or choose another --model_dir. To "
        "start from the weights of another training, set task.init_checkpoint."
      )
    )


def latest_valid(*directories: str) -> str | None:
  """Returns the checkpoint to resume from: the latest one that is valid.

  That is the one that the state file names, unless a process was killed after it wrote a later one
  and before it updated the state file. Skipped checkpoints are reported on standard error.

  Args:
    *directories: checkpoint directories, in order of preference; they may be missing.

  Returns:
    Path without suffix, or None if there is no checkpoint at all.

  Raises:
    UserError: there are checkpoints, but none is valid.
  """
  skipped = []
  for directory in directories:
    candidates = list(_newest_first(directory))
    recorded = recorded_latest(directory)
    for checkpoint in candidates:
      problem = find_corruption(checkpoint)
      if problem is None:
        if recorded not in candidates:
          skipped.append(_describe_missing(directory, recorded))
        if skipped or checkpoint != recorded:
          _warn_once("; ".join([*skipped, f"using {checkpoint}"]))
        return checkpoint
      skipped.append(f"{checkpoint} is corrupt and not used: {problem}")
  if skipped:
    raise UserError(
      f"no checkpoint in {' and '.join(directories)} is valid. {skipped[0]}. Restore the directory "
      "from a backup, or start over in another one."
    )
  return None


def repair(directory: str) -> None:
  """Makes the state file name the latest valid checkpoint, and deletes unfinished ones.

  Only the process that is about to write to the directory may call this. Corrupt checkpoints are
  not deleted, but removed from the state file; a later one of the same step replaces them.

  Args:
    directory: checkpoint directory; may be missing.

  Raises:
    UserError: see `latest_valid`.
  """
  if not tf.io.gfile.isdir(directory):
    return
  for name in tf.io.gfile.listdir(directory):
    if _UNFINISHED.fullmatch(name.rstrip("/")):
      path = os.path.join(directory, name.rstrip("/"))
      is_directory = tf.io.gfile.isdir(path) and not os.path.islink(path)
      (tf.io.gfile.rmtree if is_directory else tf.io.gfile.remove)(path)
  forget_others(directory)
  valid = latest_valid(directory)
  if valid is None:
    state = os.path.join(directory, STATE_FILE)
    if tf.io.gfile.exists(state):
      tf.io.gfile.remove(state)
  elif valid != recorded_latest(directory):
    earlier = [path for path in _newest_first(directory) if step_of(path) < step_of(valid)]
    _write_state(directory, [*sorted(earlier, key=step_of), valid])


def forget_others(directory: str) -> None:
  """Removes the checkpoints of other directories from the state file.

  A state file with absolute names may have been copied together with its checkpoints. A
  CheckpointManager deletes the oldest ones of its list, wherever they are.

  Args:
    directory: checkpoint directory of this run; may be missing.
  """
  state = _read_state(directory)
  if state is None:
    return
  recorded = [*dict.fromkeys((*state.all_model_checkpoint_paths, state.model_checkpoint_path))]
  others = [path for path in recorded if path and not _is_in(path, directory)]
  if not others:
    return
  _warn_once(
    f"{os.path.join(directory, STATE_FILE)} names {others[0]}, which is not in this directory and "
    "is neither used nor deleted"
  )
  own = [path for path in recorded if path not in others and tf.io.gfile.exists(path + _INDEX)]
  if own:
    _write_state(directory, sorted(own, key=step_of))
  else:
    tf.io.gfile.remove(os.path.join(directory, STATE_FILE))


def _is_in(path: str, directory: str) -> bool:
  parent = os.path.dirname(path)
  if "://" in directory:
    return parent == directory.rstrip("/")
  return os.path.realpath(parent) == os.path.realpath(directory)


def repair_best(directory: str, metric: str) -> None:
  """Deletes the metrics of the best checkpoint if a later one cannot be compared with it.

  Model Garden writes the metrics first. If the process is killed before the checkpoint is written,
  Model Garden waits for a better evaluation, or fails to start. It fails after the next evaluation
  if the metrics lack the one to compare, and never finds a better one than NaN.

  Args:
    directory: `trainer.best_checkpoint_export_subdir` of a run; may be missing.
    metric: `trainer.best_checkpoint_eval_metric`, with "|" between the keys of nested metrics.
  """
  forget_others(directory)
  metrics = os.path.join(directory, _BEST_METRICS)
  if not tf.io.gfile.exists(metrics):
    return
  try:
    with tf.io.gfile.GFile(metrics) as file:
      saved = json.loads(file.read())
    step = int(saved["best_ckpt_global_step"])
    value = float(functools.reduce(operator.getitem, metric.split("|"), saved))
    best = latest_valid(directory)
    finished = (
      best is not None
      and math.isfinite(value)
      and step
      == int(
        tf.train.load_checkpoint(glob_free_path(best)).get_tensor(
          "global_step/.ATTRIBUTES/VARIABLE_VALUE"
        )
      )
    )
  except (LookupError, RecursionError, TypeError, ValueError, tf.errors.OpError):
    # Truncated, or corrupt, or of no run.
    finished = False
  if not finished:
    _warn_once(
      f"{metrics} has no valid {metric}, or belongs to a checkpoint that was not finished; the "
      "next evaluation becomes the best one"
    )
    tf.io.gfile.remove(metrics)


def _describe_missing(directory: str, recorded: str | None) -> str:
  state = os.path.join(directory, STATE_FILE)
  if recorded:
    return f"{state} names {recorded}, which does not exist"
  return f"{state} names no checkpoint"


def _warn_once(message: str) -> None:
  _warn(original_paths(message))


@functools.cache
def _warn(message: str) -> None:
  print("warning:", message, file=sys.stderr, flush=True)


def _write_state(directory: str, checkpoints: list[str]) -> None:
  """Writes the state file, oldest checkpoint first, as `tf.train.CheckpointManager` reads it."""
  # Relative names, as the directory may be moved.
  names = [json.dumps(os.path.basename(path)) for path in checkpoints]
  times = [_mtime_ns(path + _INDEX) / 1e9 for path in checkpoints]
  lines = [f"model_checkpoint_path: {names[-1]}"]
  lines += [f"all_model_checkpoint_paths: {name}" for name in names]
  lines += [f"all_model_checkpoint_timestamps: {time}" for time in times]
  # A CheckpointManager only deletes checkpoints that are newer than this.
  lines.append(f"last_preserved_timestamp: {min(times) - 1}")
  path = os.path.join(directory, STATE_FILE)
  if os.path.islink(f"{path}.new"):  # planted: it is not written through
    os.unlink(f"{path}.new")
  with tf.io.gfile.GFile(f"{path}.new", "w") as file:
    file.write("\n".join(lines) + "\n")
  tf.io.gfile.rename(f"{path}.new", path, overwrite=True)


def recorded_latest(directory: str) -> str | None:
  """Returns the checkpoint that the state file names as the latest, which may be missing."""
  state = _read_state(directory)
  return state.model_checkpoint_path or None if state else None


def is_state_readable(directory: str) -> bool:
  """Returns whether a CheckpointManager can read the state file, or there is none."""
  if _is_irregular(os.path.join(directory, STATE_FILE)):
    return False
  try:
    tf.train.get_checkpoint_state(directory)
  except (tf.errors.OpError, ValueError):
    return False
  return True


def _is_irregular(path: str) -> bool:
  """Returns whether a path is a directory, or a pipe or a device, which may be read forever."""
  return os.path.exists(path) and not os.path.isfile(path)


def _read_state(directory: str) -> object | None:
  if _is_irregular(os.path.join(directory, STATE_FILE)):
    return None
  try:
    return tf.train.get_checkpoint_state(directory)
  except (tf.errors.OpError, ValueError):  # unreadable, or not a state file
    return None


def _newest_first(directory: str) -> Iterator[str]:
  """Yields the checkpoints with an index file, in the order in which to try them."""
  if not tf.io.gfile.isdir(directory):
    return
  on_disk = [
    os.path.join(directory, name.removesuffix(_INDEX))
    for name in tf.io.gfile.listdir(directory)
    if name.endswith(_INDEX)
  ]
  on_disk.sort(key=step_of, reverse=True)
  state = _read_state(directory)
  recorded = list(state.all_model_checkpoint_paths)[::-1] if state else []
  state_time = _mtime_ns(os.path.join(directory, STATE_FILE)) if state else 0
  # Written after the state file: the process was killed before it updated the state file.
  unrecorded = [
    path for path in on_disk if path not in recorded and _mtime_ns(path + _INDEX) > state_time
  ]
  latest = [state.model_checkpoint_path] if state else []
  for path in dict.fromkeys([*unrecorded, *latest, *recorded, *on_disk]):
    if path in on_disk:
      yield path


def _mtime_ns(path: str) -> int:
  return tf.io.gfile.stat(path).mtime_nsec
