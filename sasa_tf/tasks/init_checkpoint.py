"""Initializes a model, or parts of it, from the checkpoint of another training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.compat import checkpoint_objects
from sasa_tf.compat.glob_free_paths import glob_free_path, original_paths
from sasa_tf.errors import UserError


def find_init_checkpoint(path: str) -> str:
  """Returns the checkpoint of `init_checkpoint`: itself, or the latest of a directory.

  Args:
    path: a checkpoint without suffix, or a directory.

  Raises:
    UserError: there is no checkpoint.
  """
  if not tf.io.gfile.isdir(path):
    if tf.io.gfile.exists(f"{path}.index"):
      return path
    raise UserError(
      f"task.init_checkpoint={path}: no such checkpoint. Set it to the directory of a training, "
      "or to a checkpoint in it without its suffix, for example runs/imagenet/best_ckpt."
    )
  try:
    state = tf.train.get_checkpoint_state(path)
  except ValueError:  # not a state file
    state = None
  latest = state.model_checkpoint_path if state else None
  if latest is None or not tf.io.gfile.exists(f"{latest}.index"):
    raise UserError(
      f"task.init_checkpoint={path} holds no checkpoint. Set it to the directory of a training, or "
      "to a checkpoint in it without its suffix."
    )
  return latest


def restore_init_checkpoint(
  path: str,
  modules: str | Sequence[str],
  parts: Mapping[str, Any],
  all_items: Mapping[str, Any],
) -> None:
  """Restores the parts of a model that `init_checkpoint_modules` selects.

  Args:
    path: `init_checkpoint`, see `find_init_checkpoint`.
    modules: `init_checkpoint_modules`: "all", or the names of parts.
    parts: {name: part of the model}; one of them is the backbone.
    all_items: {name in the checkpoint: part} for "all".

  Raises:
    UserError: there is no checkpoint, a part does not exist, or a weight does not fit.
  """
  checkpoint = glob_free_path(find_init_checkpoint(path))
  names = [name.strip() for name in modules.split(",")] if isinstance(modules, str) else [*modules]
  if names != ["all"] and (not names or not set(names) <= parts.keys()):
    raise UserError(
      f"task.init_checkpoint_modules={modules}: expected all, or some of {', '.join(parts)}."
    )
  items = all_items if names == ["all"] else {name: parts[name] for name in names}
  try:
    found = checkpoint_objects.mismatches(checkpoint, items)
    if not found:
      status = tf.train.Checkpoint(**items).read(checkpoint).expect_partial()
      status.assert_existing_objects_matched()
  except (AssertionError, LookupError, RuntimeError, ValueError, tf.errors.OpError) as error:
    problem = original_paths(str(error)).splitlines()[0]
    raise UserError(
      f"task.init_checkpoint={path} cannot be read: {problem}. Use another checkpoint."
    ) from error
  if found:
    raise UserError(
      f"task.init_checkpoint={path} does not fit task.init_checkpoint_modules={modules} of this "
      f"model: {checkpoint_objects.describe(found)}. {_cure(found, names, parts['backbone'])}"
    )


def _cure(found: Sequence[checkpoint_objects.Mismatch], names: list[str], backbone: Any) -> str:
  of_backbone = {variable.ref() for variable in backbone.variables}
  if names != ["backbone"] and not any(each.variable.ref() in of_backbone for each in found):
    return (
      "The backbone fits: set task.init_checkpoint_modules=backbone to initialize it alone, for "
      "example with other classes."
    )
  return (
    "Configure the backbone that was trained (its depth, stem, attention_groups and widths), or "
    "use another checkpoint."
  )
