"""Loads the configuration of an experiment from its name, YAML files and overrides, strictly."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from official.core import config_definitions, exp_factory
from official.modeling.hyperparams import base_config, params_dict

from sasa_tf.compat import model_garden
from sasa_tf.errors import UserError, did_you_mean
from sasa_tf.outputs.config_files import find_config_file

# File in model_dir that holds the name of the experiment, which params.yaml does not.
RUN_FILE = "run.json"


def load_experiment(
  experiment: str, config_files: Iterable[str] = (), params_override: str | None = None
) -> config_definitions.ExperimentConfig:
  """Returns the locked configuration: the experiment, then files in order, then overrides.

  Args:
    experiment: name of an experiment registered with Model Garden.
    config_files: YAML or JSON files. A path that does not exist is looked up in the package's
      official configs, for example "cifar10/sasa_resnet26.yaml".
    params_override: a YAML or JSON string or file, or "a.b=1,c.d=2".

  Raises:
    UserError: an unknown experiment, file or key. The message suggests the closest known names.
  """
  try:
    params = exp_factory.get_exp_config(experiment)
  except LookupError:
    known = model_garden.registered_experiments()
    raise UserError(
      f"unknown experiment {experiment!r}. {did_you_mean(experiment, known)}"
    ) from None
  for file in config_files:
    path = find_config_file(file)
    _override(params, str(path), source=str(path))
  if params_override:
    _override(params, params_override, source="--params_override")
  params.validate()
  params.lock()
  return params


def load_trained_experiment(
  model_dir: str | None,
  experiment: str | None,
  config_files: Iterable[str] = (),
  params_override: str | None = None,
) -> config_definitions.ExperimentConfig:
  """Returns the configuration of a finished training, or of the given experiment.

  Args:
    model_dir: directory of the training. Its run.json and params.yaml are read unless `experiment`
      is given.
    experiment: name of an experiment, or None.
    config_files: further overrides, see `load_experiment`.
    params_override: further overrides.

  Raises:
    UserError: see `load_experiment`; or the directory has no run.json.
  """
  if experiment:
    return load_experiment(experiment, config_files, params_override)
  if not model_dir:
    raise UserError("expected --model_dir of a training, or --experiment; received neither.")
  run_file = pathlib.Path(model_dir, RUN_FILE)
  if not run_file.is_file():
    raise UserError(
      f"--model_dir={model_dir} has no {RUN_FILE}, which `sasa_tf.bin.train` writes there. Check "
      "the directory, or set --experiment (and --config_file) to what was trained."
    )
  trained = json.loads(run_file.read_text())["experiment"]
  files = [str(pathlib.Path(model_dir, "params.yaml")), *config_files]
  return load_experiment(trained, files, params_override)


def _override(params: config_definitions.ExperimentConfig, override: str, source: str) -> None:
  try:
    parsed = params_dict.override_params_dict(
      params_dict.ParamsDict(), override, is_strict=False
    ).as_dict()
  except Exception as error:
    raise UserError(
      f"{source}: expected YAML or JSON with nested keys, or 'a.b=1,c.d=2'; received "
      f"{override!r}, which cannot be parsed: {' '.join(str(error).split())}. Put single quotes "
      "around values with one of , [ ] { } : #"
    ) from error
  _check_keys(params, parsed, source, path="")
  params.override(parsed, is_strict=True)


def _check_keys(
  params: base_config.Config, override: Mapping[str, Any], source: str, path: str
) -> None:
  """Raises a `UserError` for the first key that the configuration does not have."""
  # A OneOfConfig's `as_dict` has the chosen field only, but a file may choose another one.
  known = {*params.as_dict(), *(field.name for field in dataclasses.fields(params))}
  for key, value in override.items():
    if key not in known:
      where = f"in {path}" if path else "at the top level"
      raise UserError(f"{source}: no key {key!r} {where}. {did_you_mean(str(key), known)}")
    child = getattr(params, key)
    if isinstance(child, base_config.Config) and isinstance(value, Mapping):
      _check_keys(child, value, source, f"{path}.{key}" if path else key)
