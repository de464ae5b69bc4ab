"""Loads the configuration of an experiment from its name, YAML files and overrides, strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
from absl import logging
from official.core import config_definitions, exp_factory

from sasa_tf.compat import model_garden
from sasa_tf.errors import UserError, did_you_mean
from sasa_tf.modeling.presets import Preset
from sasa_tf.outputs.config_files import find_config_file
from sasa_tf.training import preset_overrides
from sasa_tf.training.config_validation import override_text, strict_yaml
from sasa_tf.training.config_validation.experiment_check import check_experiment
from sasa_tf.training.config_validation.overrides import Overrides
from sasa_tf.training.model_differences import PARAMS_FILE, load_model_config

# File in model_dir that holds the name of the experiment, which params.yaml does not.
RUN_FILE = "run.json"


def load_experiment(
  experiment: str,
  config_files: Iterable[str] = (),
  params_override: str | None = None,
  *,
  mode: str | None = None,
  num_logical_cpus: int = 0,
) -> config_definitions.ExperimentConfig:
  """Returns the locked configuration: the experiment, then files in order, then overrides.

  Args:
    experiment: name of an experiment registered with Model Garden.
    config_files: YAML or JSON files. A path that does not exist is looked up in the package's
      official configs, for example "cifar10/sasa_resnet26.yaml".
    params_override: a YAML or JSON string or file, or "a.b=1,c.d=2".
    mode: Model Garden's mode, "export", or None. What the mode does not use is not checked.
    num_logical_cpus: number of replicas on the CPU, or 0.

  Raises:
    UserError: an unknown experiment or file.
    ConfigError: unknown keys and invalid values, with the closest known names. It lists all of
      them.
  """
  overrides = Overrides(_registered(experiment))
  for file in config_files:
    path = file if "://" in str(file) else find_config_file(file)
    overrides.apply(_warn(strict_yaml.read_file(path)), str(path))
  return _checked(overrides, params_override, mode, num_logical_cpus)


def load_preset_experiment(
  preset: Preset, params_override: str | None = None, *, mode: str | None = None
) -> config_definitions.ExperimentConfig:
  """Returns the configuration of the model of a preset. It names no data.

  Args:
    preset: of a classifier or detector.
    params_override: further overrides, see `load_experiment`.
    mode: see `load_experiment`.

  Raises:
    UserError: see `load_experiment`; or Model Garden cannot build the model.
  """
  experiment, values = preset_overrides.experiment_of(preset)
  overrides = Overrides(_registered(experiment))
  overrides.apply(values, str(preset.path))
  return _checked(overrides, params_override, mode)


def _registered(experiment: str) -> config_definitions.ExperimentConfig:
  try:
    return exp_factory.get_exp_config(experiment)
  except LookupError:
    known = model_garden.registered_experiments()
    raise UserError(
      f"unknown experiment {experiment!r}. {did_you_mean(experiment, known)}"
    ) from None


def _checked(
  overrides: Overrides, params_override: str | None, mode: str | None, num_logical_cpus: int = 0
) -> config_definitions.ExperimentConfig:
  """Applies the last overrides, and returns the configuration, checked and locked."""
  if params_override:
    source = "--params_override"
    overrides.apply(_warn(override_text.parse(params_override, source)), source)
  params = overrides.params
  check_experiment(
    params,
    mode,
    num_logical_cpus=num_logical_cpus,
    earlier=overrides.problems,
    sources=overrides.sources,
  )
  params.lock()
  return params


def load_trained_experiment(
  model_dir: str | None,
  experiment: str | None,
  config_files: Iterable[str] = (),
  params_override: str | None = None,
  *,
  mode: str | None = None,
) -> config_definitions.ExperimentConfig:
  """Returns the configuration of a finished training, or of the given experiment.

  Args:
    model_dir: directory of the training. Its run.json and params.yaml are read unless `experiment`
      is given.
    experiment: name of an experiment, or None.
    config_files: further overrides, see `load_experiment`.
    params_override: further overrides.
    mode: see `load_experiment`.

  Raises:
    UserError: see `load_experiment`; or run.json or params.yaml of the directory is missing or
      broken.
  """
  if experiment:
    return load_experiment(experiment, config_files, params_override, mode=mode)
  if not model_dir:
    raise UserError("expected --model_dir of a training, or --experiment; received neither.")
  run_file = os.path.join(model_dir, RUN_FILE)
  if not tf.io.gfile.exists(run_file):
    raise UserError(
      f"--model_dir={model_dir} has no {RUN_FILE}, which `sasa_tf.bin.train` writes there. Check "
      "the directory, or set --experiment (and --config_file) to what was trained."
    )
  trained = _read_run_file(run_file)
  try:
    _registered(trained)
  except UserError as error:
    raise UserError(
      f"{run_file}: {error} Restore the file, or set --experiment (and --config_file) to what was "
      "trained."
    ) from None
  params_file = os.path.join(model_dir, PARAMS_FILE)
  load_model_config(params_file)  # Without it, the experiment's own model would be taken.
  return load_experiment(trained, [params_file, *config_files], params_override, mode=mode)


def _warn(parsed: tuple[Any, list[str]]) -> Any:
  """Logs the warnings of a parsed text and returns its value."""
  value, warnings = parsed
  for warning in warnings:
    logging.warning("%s", warning)
  return value


def _read_run_file(path: str) -> str:
  """Returns the name of the experiment in run.json."""
  try:
    if os.path.exists(path) and not os.path.isfile(path):
      raise ValueError("it is a directory, a pipe or a device")
    with tf.io.gfile.GFile(path) as file:
      trained = json.loads(file.read())["experiment"]
    if isinstance(trained, str):
      return trained
    problem = f"the experiment is {trained!r}"
  except (LookupError, RecursionError, TypeError, ValueError, tf.errors.OpError) as error:
    problem = f"{type(error).__name__}: {getattr(error, 'message', error)}"
  raise UserError(
    f"{path}: expected a JSON object with the name of the experiment, as `sasa_tf.bin.train` "
    f"writes it; received something else ({problem}). Set --experiment (and --config_file) to what "
    "was trained, or restore the file."
  )
