"""Checks before the first step that all workers run the same configuration."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from official.core import config_definitions

import sasa_tf
from sasa_tf.errors import UserError
from sasa_tf.training.input_files import find_input_files, is_files, literal_paths
from sasa_tf.training.multi_worker.cluster import Cluster

_MAX_DIFFERENCES = 5
# Settings that differ between the processes of a run.
_PER_PROCESS = ("runtime.task_index",)


class WorkerConfig(NamedTuple):
  """The configuration of one process.

  Attributes:
    name: name of the process in error messages.
    settings: {dotted name: JSON value} that must be equal in every process.
    seed: seed that the process proposes for the order of the input files.
  """

  name: str
  settings: dict[str, Any]
  seed: int


def sync_experiment(
  distribution: tf.distribute.Strategy,
  cluster: Cluster,
  experiment: str,
  params: config_definitions.ExperimentConfig,
  mode: str,
  flags: Mapping[str, str] = types.MappingProxyType({}),
) -> config_definitions.ExperimentConfig:
  """Returns the configuration to train with, after a check that it is equal in all processes.

  Each process trains on its share of the input files, so all must read them in the same order.
  Unless the user sets a seed, all use one that the chief draws for this run. Model Garden draws one
  in each process, so that the shares overlap.

  Args:
    distribution: strategy of the training.
    cluster: processes of the training.
    experiment: name of the experiment.
    params: configuration of the experiment.
    mode: Model Garden's mode.
    flags: {name: value} of further flags that must be equal.

  Raises:
    UserError: configurations, versions or input files differ. Raised in every process.
  """
  files = {name: _files(getattr(params.task, name)) for name in ("train_data", "validation_data")}
  settings = {**_settings(experiment, params, mode, files), **flags}
  own = WorkerConfig(str(cluster), settings, random.SystemRandom().randrange(1 << 31))
  num_processes = len(cluster.addresses)
  chief = sync_config(distribution, own, num_processes)
  if cluster.is_chief:
    _warn_if_uneven(len(files["train_data"]), num_processes)
  data = {
    name: getattr(params.task, name).replace(input_path=literal_paths(paths))
    for name, paths in files.items()
    if paths
  }
  train_data = data.get("train_data", params.task.train_data)
  if train_data.seed is None:
    data["train_data"] = train_data.replace(seed=chief.seed)
  return params.replace(
    task=params.task.replace(**data),
    # On SIGTERM, Model Garden restores a checkpoint in the chief only. `StopRequest` replaces it.
    trainer=params.trainer.replace(preemption_on_demand_checkpoint=False),
  )


def sync_config(
  distribution: tf.distribute.Strategy, own: WorkerConfig, num_processes: int
) -> WorkerConfig:
  """Returns the chief's configuration, after a check that all processes have the same settings.

  Args:
    distribution: strategy of the training.
    own: configuration of this process.
    num_processes: number of processes.

  Raises:
    UserError: settings differ. The message is the same in all processes.
  """
  texts = all_gather_strings(distribution, json.dumps(own), num_processes)
  chief, *others = (WorkerConfig(*json.loads(text)) for text in texts)
  differences = [line for other in others for line in _differences(chief, other)]
  if differences:
    more = len(differences) - _MAX_DIFFERENCES
    raise UserError(
      "the processes of this training have different configurations: "
      f"{'; '.join(differences[:_MAX_DIFFERENCES])}{f'; and {more} more' if more > 0 else ''}. "
      "Start all with the same version, flags, files and data; only TF_CONFIG's task may differ."
    )
  return chief


def all_gather_strings(
  distribution: tf.distribute.Strategy, text: str, num_processes: int
) -> list[str]:
  """Returns the string of every process, the chief's first. Waits until all have called.

  Args:
    distribution: strategy of the training.
    text: string of this process.
    num_processes: number of processes.
  """

  def gather(values: tf.Tensor) -> tf.Tensor:
    # As float32, which every implementation of collectives gathers on any device.
    replicas = distribution.experimental_distribute_values_from_function(
      lambda context: tf.cast(values, tf.float32)
    )
    return distribution.gather(replicas, axis=0)

  # Never empty: gathering empty tensors from all processes crashes TensorFlow 2.20.
  encoded = f"{text}\n".encode()
  lengths = tf.cast(gather(tf.constant([len(encoded)])), tf.int32).numpy().tolist()
  gathered = gather(tf.io.decode_raw(encoded, tf.uint8))
  gathered = tf.cast(gathered, tf.uint8).numpy().tobytes()
  ends = list(itertools.accumulate(lengths))
  replicas = [gathered[end - length : end] for end, length in zip(ends, lengths, strict=True)]
  processes = replicas[:: len(replicas) // num_processes]
  return [part.decode().removesuffix("\n") for part in processes]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {dotted name: leaf} of nested mappings."""
  flat = {}
  for key, child in value.items():
    if isinstance(child, Mapping):
      flat.update(flatten(child, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = child
  return flat


def _settings(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  mode: str,
  files: Mapping[str, list[str]],
) -> dict[str, Any]:
  """Returns what must be equal in all processes."""
  settings = {
    "the version of sasa_tf": sasa_tf.__version__,
    "the version of TensorFlow": tf.__version__,
    "--experiment": experiment,
    "--mode": mode,
    **flatten(params.as_dict()),
  }
  for name in _PER_PROCESS:
    settings.pop(name, None)
  for name, paths in files.items():
    # Base names only: each host may have its own copy in a different directory.
    settings[f"the files of task.{name}.input_path"] = [os.path.basename(path) for path in paths]
  return settings


def _files(data: config_definitions.DataConfig) -> list[str]:
  """Returns the TFRecord files in an order that is the same on every host."""
  if not is_files(data):
    return []
  return sorted(find_input_files(data.input_path), key=lambda path: (os.path.basename(path), path))


def _warn_if_uneven(num_files: int, num_processes: int) -> None:
  if num_files > num_processes and num_files % num_processes:
    print(
      f"warning: task.train_data has {num_files} files for {num_processes} processes. A process "
      "reads complete files, so images of some files are used more often than others. Write a "
      f"multiple of {num_processes} files (make_tfrecords --num_shards).",
      file=sys.stderr,
    )


def _differences(chief: WorkerConfig, other: WorkerConfig) -> list[str]:
  return [
    f"{key} is {chief.settings.get(key)!r} in the {chief.name}, but {other.settings.get(key)!r} in "
    f"the {other.name}"
    for key in sorted({*chief.settings, *other.settings})
    if chief.settings.get(key) != other.settings.get(key)
  ]
