"""The role of one process of a run: a training worker, a single trainer, or an evaluator."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from official.core import base_task, config_definitions, task_factory

from sasa_tf.compat.glob_free_paths import glob_free_path
from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker.cluster import Cluster

_MULTI_WORKER = "multi_worker_mirrored"


class Role(NamedTuple):
  """The role of a process.

  Attributes:
    mode: Model Garden's mode of this process.
    distribution_strategy: Model Garden's name of the strategy.
    cluster: cluster that the process trains with, or None for a single process.
  """

  mode: str
  distribution_strategy: str
  cluster: Cluster | None

  @property
  def writes_model_dir(self) -> bool:
    """Whether this process may write to model_dir."""
    return self.cluster is None or self.cluster.is_chief


def resolve_role(
  params: config_definitions.ExperimentConfig, mode: str, cluster: Cluster | None
) -> Role:
  """Returns the role of this process.

  All processes of a run may be started with the same command. The evaluator of TF_CONFIG therefore
  evaluates in any mode, and if there is one, the other processes do not evaluate.

  Args:
    params: configuration of the experiment.
    mode: Model Garden's mode.
    cluster: cluster of TF_CONFIG, or None.

  Raises:
    UserError: mode, strategy and TF_CONFIG are incompatible.
  """
  runtime = params.runtime
  strategy = runtime.distribution_strategy
  evaluates_only = "train" not in mode
  if cluster is not None and cluster.is_evaluator:
    mode = mode if evaluates_only else "continuous_eval"
    return Role(mode, _single_process_strategy(runtime), None)
  if cluster is None or (len(cluster.addresses) == 1 and strategy != _MULTI_WORKER):
    if strategy != _MULTI_WORKER or evaluates_only:
      return Role(mode, _single_process_strategy(runtime), None)
    raise UserError(
      f"runtime.distribution_strategy={_MULTI_WORKER} needs the environment variable TF_CONFIG in "
      "every process, for example "
      '\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": '
      "0}}'; received none. On a single machine use mirrored, or one_device."
    )
  if strategy != _MULTI_WORKER:
    raise UserError(
      f"TF_CONFIG makes this process the {cluster}, but runtime.distribution_strategy={strategy}, "
      f"which is for a single process. Set {_MULTI_WORKER}, or unset TF_CONFIG."
    )
  if evaluates_only:
    raise UserError(
      f"TF_CONFIG makes this process the {cluster}, but --mode={mode} is for a single process. "
      'Unset TF_CONFIG, or make this process the evaluator: "task": {"type": "evaluator", "index": '
      "0}."
    )
  if "eval" in mode and cluster.has_evaluator:
    mode = "train"
  if "eval" in mode and _aggregates_predictions(params):
    raise UserError(
      f"--mode={mode} with several processes: each would compute the average precision of its own "
      "share of the images, which is not that of all images. Use --mode=train, and run "
      "--mode=continuous_eval in a separate process without TF_CONFIG (or as its evaluator)."
    )
  return Role(mode, strategy, cluster)


@contextlib.contextmanager
def output_directory(
  model_dir: str, writes_model_dir: bool, params: config_definitions.ExperimentConfig
) -> Iterator[str]:
  """Yields the output directory of this process: model_dir, or a temporary directory.

  The path of model_dir has no characters of glob patterns, see `glob_free_path`.

  Saving a checkpoint reads the variables of all processes together, so all of them write one. Only
  the chief's is kept.

  Args:
    model_dir: directory of the run.
    writes_model_dir: whether this process may write there.
    params: configuration of the experiment.
  """
  if writes_model_dir:
    yield glob_free_path(model_dir)
    return
  with tempfile.TemporaryDirectory(prefix="sasa_tf_worker_") as scratch:
    best = params.trainer.best_checkpoint_export_subdir
    source = os.path.join(model_dir, best, "info.json")
    if best and tf.io.gfile.exists(source):
      # All processes must agree which evaluation is the best so far.
      tf.io.gfile.makedirs(os.path.join(scratch, best))
      tf.io.gfile.copy(source, os.path.join(scratch, best, "info.json"))
    yield scratch


def _single_process_strategy(runtime: config_definitions.RuntimeConfig) -> str:
  if runtime.distribution_strategy != _MULTI_WORKER:
    return runtime.distribution_strategy
  return "mirrored" if runtime.num_gpus > 1 else "one_device"


def _aggregates_predictions(params: config_definitions.ExperimentConfig) -> bool:
  """Whether each process computes metrics from its own predictions instead of summed counts."""
  task = task_factory.get_task_cls(type(params.task))
  return task.aggregate_logs is not base_task.Task.aggregate_logs
