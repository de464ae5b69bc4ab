"""Compares the configuration of a model with that of the training that wrote a checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from official.core import config_definitions
from official.modeling.hyperparams import base_config

from sasa_tf.errors import ConfigError, UserError
from sasa_tf.training.config_validation import strict_yaml
from sasa_tf.training.config_validation.problems import show

# Model Garden's file in model_dir with the configuration of the run.
PARAMS_FILE = "params.yaml"
# Settings of a model that change neither its weights nor what it computes of an image.
_WITHOUT_EFFECT = re.compile(
  r"task\.model\.(input_size|dropout_rate|kernel_initializer|detection_generator\..*"
  r"|norm_activation\.(norm_momentum|use_sync_bn)|.*\.implementation)"
)
_MAX_LISTED = 5


def check_exported_model(
  params: config_definitions.ExperimentConfig, checkpoint: str, model_dir: str | None
) -> None:
  """Checks that the configuration of an export is that of the trained model.

  Some differences change no weight, so that the checkpoint would fit, for example the window of an
  attention without positions.

  Args:
    params: configuration of the export.
    checkpoint: to export. params.yaml is looked for in its directory and the parent.
    model_dir: directory of the training, if known.

  Raises:
    UserError: a setting of the model differs; the message names the keys and both values.
  """
  folder = os.path.dirname(checkpoint)
  for directory in filter(None, (folder, os.path.dirname(folder), model_dir)):
    saved = os.path.join(directory, PARAMS_FILE)
    if tf.io.gfile.exists(saved):
      break
  else:
    return
  trained, current = load_model_config(saved), without_tuples(params.task.model.as_dict())
  for model in (trained, current):  # the settings of other types are not used
    for part in ("backbone", "decoder"):
      if isinstance(model.get(part), Mapping) and "type" in model[part]:
        kind = model[part]["type"]
        model[part] = {"type": kind, str(kind): model[part].get(kind)}
  changes = [
    f"{key} is {before!r} in the training, {now!r} here"
    for key, before, now in differences(trained, current)
    # Settings that an earlier version did not have are not in its params.yaml.
    if before is not None and not _WITHOUT_EFFECT.fullmatch(key)
  ]
  if changes:
    more = f"; and {len(changes) - _MAX_LISTED} more" if len(changes) > _MAX_LISTED else ""
    raise UserError(
      f"the configuration is not that of the model in {checkpoint} ({saved}): "
      f"{'; '.join(changes[:_MAX_LISTED])}{more}. Remove what changes it from --config_file and "
      "--params_override, or set --checkpoint_path to a checkpoint of that model."
    )


def load_model_config(path: str) -> dict[str, Any]:
  """Returns the configuration of the model in params.yaml, with lists for tuples.

  Args:
    path: the file in the directory of a training.

  Raises:
    UserError: the file is not what Model Garden writes.
  """
  try:
    params, _ = strict_yaml.read_file(path)
    problem = _missing_section(params)
  except ConfigError as error:
    problem = str(error).removeprefix(f"{path}: ")
  if problem:
    raise UserError(
      f"{path}: expected the configuration of a training with task.model.backbone, as "
      f"`sasa_tf.bin.train` writes it; received something else ({problem.rstrip('.')}). Restore "
      "the file from a backup, or use another directory."
    )
  return without_tuples(params["task"]["model"])


def with_defaults(saved: Mapping[str, Any], config: Any) -> dict[str, Any]:
  """Returns a saved configuration with the defaults of settings that it lacks.

  An earlier version, which did not have these settings, wrote it.

  Args:
    saved: section of params.yaml.
    config: the same section of this run, whose classes define the defaults.
  """
  default, completed = type(config)(), dict(saved)
  for key in config.as_dict():
    value = getattr(default, key)
    if isinstance(value, base_config.Config):
      section = completed.get(key, {})
      if isinstance(section, Mapping):
        completed[key] = with_defaults(section, getattr(config, key) or value)
    elif key not in completed:
      completed[key] = without_tuples(value)
  return completed


def load_optimizer_config(path: str) -> dict[str, Any]:
  """Returns `trainer.optimizer_config` of a params.yaml, {} if it has none.

  Args:
    path: the file, which `load_model_config` has read before.
  """
  params, _ = strict_yaml.read_file(path)
  trainer = params.get("trainer")
  config = trainer.get("optimizer_config") if isinstance(trainer, Mapping) else None
  return without_tuples(config) if isinstance(config, Mapping) else {}


def _missing_section(params: Any) -> str | None:
  """Returns what lacks of the configuration of a backbone, or None."""
  path, value = "the file", params
  for key in ("task", "model", "backbone", "type"):
    if not isinstance(value, Mapping):
      return f"{path} has no keys, but is {show(value)}"
    if key not in value:
      return f"{path} has no key {key!r}"
    path, value = (key if value is params else f"{path}.{key}"), value[key]
  settings = params["task"]["model"]["backbone"]
  if not isinstance(value, str) or not isinstance(settings.get(value), Mapping):
    return f"{path} is {show(value)}, and task.model.backbone has no section of that name"
  return None


def without_tuples(value: Any) -> Any:
  """Returns nested mappings and sequences as dicts and lists, as params.yaml has them."""
  if isinstance(value, Mapping):
    return {key: without_tuples(v) for key, v in value.items()}
  return [without_tuples(v) for v in value] if isinstance(value, (list, tuple)) else value


def differences(
  saved: Any, current: Any, path: str = "task.model"
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (key, saved value, current value) of every leaf that differs."""
  if isinstance(saved, Mapping) and isinstance(current, Mapping):
    for key in sorted({*saved, *current}):
      yield from differences(saved.get(key), current.get(key), f"{path}.{key}")
  elif saved != current:
    yield path, saved, current
