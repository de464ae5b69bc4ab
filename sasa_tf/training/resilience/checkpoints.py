"""Which checkpoint of a directory is whole: killed, full and failing disks leave others behind."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Iterator

import tensorflow as tf

from sasa_tf.errors import UserError

# TensorFlow's, which says which checkpoint is the last and which ones there are.
STATE_FILE = "checkpoint"
_INDEX = ".index"
# Model Garden's, beside the best checkpoint.
_BEST_METRICS = "info.json"
# What TensorFlow writes before it gives a checkpoint its name.
_UNFINISHED = re.compile(r".+-\d+_temp$|.+\.tempstate\d+$")


def find_corruption(checkpoint: str) -> str | None:
  """Returns what is wrong with a checkpoint, None where it is whole.

  Every tensor is read, which compares its bytes with the checksum that was written with them.

  Args:
    checkpoint: path without suffix, for example "runs/digits/ckpt-880".
  """
  try:
    reader = tf.train.load_checkpoint(checkpoint)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  except (tf.errors.OpError, LookupError, RuntimeError, ValueError) as error:
    return str(getattr(error, "message", error)).splitlines()[0]
  return None


def step_of(checkpoint: str) -> int:
  """Returns the number at the end of a checkpoint's name, the step it was saved at; -1 without."""
  number = re.search(r"-(\d+)$", checkpoint)
  return int(number[1]) if number else -1


def latest_valid(*directories: str) -> str | None:
  """Returns the checkpoint to go on from: the last one, or the last before it that is whole.

  That is the one that the state file names, unless a process was killed between writing a later
  one and naming it there. What was passed over, and why, is told on standard error.

  Args:
    *directories: of checkpoints, may be missing; the next one counts where the one before has none.

  Returns:
    Its path without suffix, None where there is no checkpoint at all.

  Raises:
    UserError: there are checkpoints, and none is whole.
  """
  passed_over = []
  for directory in directories:
    candidates = list(_newest_first(directory))
    named = _named_last(directory)
    for checkpoint in candidates:
      problem = find_corruption(checkpoint)
      if problem is None:
        if named not in candidates:
          passed_over.append(_unnamed(directory, named))
        if passed_over or checkpoint != named:
          _warn("; ".join([*passed_over, f"using {checkpoint}"]))
        return checkpoint
      passed_over.append(f"{checkpoint} is damaged and not used: {problem}")
  if passed_over:
    raise UserError(
      f"no checkpoint in {' and '.join(directories)} is whole. {passed_over[0]}. Restore the "
      "directory from a copy, or start again in another one."
    )
  return None


def repair(directory: str) -> None:
  """Makes the state file name the checkpoint to go on from, and removes unfinished ones.

  For the one process that is about to write there. Damaged checkpoints stay, but are named no more;
  a later one of the same step replaces them.

  Args:
    directory: of checkpoints; may be missing.

  Raises:
    UserError: as `latest_valid`.
  """
  if not tf.io.gfile.isdir(directory):
    return
  for name in tf.io.gfile.listdir(directory):
    if _UNFINISHED.fullmatch(name.rstrip("/")):
      path = os.path.join(directory, name)
      (tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else tf.io.gfile.remove)(path)
  whole = latest_valid(directory)
  if whole is None:
    state = os.path.join(directory, STATE_FILE)
    if tf.io.gfile.exists(state):
      tf.io.gfile.remove(state)
  elif whole != _named_last(directory):
    before = [path for path in _newest_first(directory) if step_of(path) < step_of(whole)]
    _write_state(directory, [*sorted(before, key=step_of), whole])


def _unnamed(directory: str, named: str | None) -> str:
  state = os.path.join(directory, STATE_FILE)
  return f"{state} names {named}, which does not exist" if named else f"{state} names no checkpoint"


@functools.cache
def _warn(message: str) -> None:
  """Tells it once, however often the directory is looked at."""
  print("warning:", message, file=sys.stderr, flush=True)


def repair_best(directory: str) -> None:
  """Forgets the best evaluation so far if its checkpoint was never finished.

  Model Garden writes the metrics first. Killed in between, it would wait for a better evaluation,
  or not start again at all.

  Args:
    directory: Model Garden's `trainer.best_checkpoint_export_subdir` of a run; may be missing.
  """
  metrics = os.path.join(directory, _BEST_METRICS)
  if not tf.io.gfile.exists(metrics):
    return
  try:
    with tf.io.gfile.GFile(metrics) as file:
      step = int(json.loads(file.read())["best_ckpt_global_step"])
    best = latest_valid(directory)
    finished = best is not None and step == int(
      tf.train.load_checkpoint(best).get_tensor("global_step/.ATTRIBUTES/VARIABLE_VALUE")
    )
  except (KeyError, ValueError, tf.errors.OpError):  # cut off, or of no run, or damaged
    finished = False
  if not finished:
    _warn(f"{metrics} is of a checkpoint that was not finished; the next evaluation is the best")
    tf.io.gfile.remove(metrics)


def _write_state(directory: str, checkpoints: list[str]) -> None:
  """Writes the state file, oldest checkpoint first, as `tf.train.CheckpointManager` reads it."""
  # Relative names, as the directory may be moved.
  names = [json.dumps(os.path.basename(path)) for path in checkpoints]
  times = [_time(path + _INDEX) / 1e9 for path in checkpoints]
  lines = [f"model_checkpoint_path: {names[-1]}"]
  lines += [f"all_model_checkpoint_paths: {name}" for name in names]
  lines += [f"all_model_checkpoint_timestamps: {time}" for time in times]
  # A manager deletes, in their turn, those that are younger than this.
  lines.append(f"last_preserved_timestamp: {min(times) - 1}")
  path = os.path.join(directory, STATE_FILE)
  with tf.io.gfile.GFile(f"{path}.new", "w") as file:
    file.write("\n".join(lines) + "\n")
  tf.io.gfile.rename(f"{path}.new", path, overwrite=True)


def _named_last(directory: str) -> str | None:
  state = _state(directory)
  return state.model_checkpoint_path or None if state else None


def _state(directory: str) -> object | None:
  try:
    return tf.train.get_checkpoint_state(directory)
  except (tf.errors.OpError, ValueError):  # cannot be read, or is no such file
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
  state = _state(directory)
  recorded = list(state.all_model_checkpoint_paths)[::-1] if state else []
  written = _time(os.path.join(directory, STATE_FILE)) if state else 0
  unrecorded = [path for path in on_disk if path not in recorded and _time(path + _INDEX) > written]
  named = [state.model_checkpoint_path] if state else []
  for path in dict.fromkeys([*unrecorded, *named, *recorded, *on_disk]):
    if path in on_disk:
      yield path


def _time(path: str) -> int:
  return tf.io.gfile.stat(path).mtime_nsec
