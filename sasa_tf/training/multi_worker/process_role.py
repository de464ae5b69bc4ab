"""What one process of a run does: train with others, train alone, or evaluate beside."""

from __future__ import annotations

from typing import NamedTuple

from official.core import base_task, config_definitions, task_factory

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker.cluster import Cluster

_TOGETHER = "multi_worker_mirrored"


class Role(NamedTuple):
  """What a process does.

  Attributes:
    mode: Model Garden's.
    distribution_strategy: Model Garden's.
    cluster: whom it trains with; None if it works alone.
  """

  mode: str
  distribution_strategy: str
  cluster: Cluster | None

  @property
  def writes(self) -> bool:
    """Whether this process may write into model_dir."""
    return self.cluster is None or self.cluster.is_chief


def resolve_role(
  params: config_definitions.ExperimentConfig, mode: str, cluster: Cluster | None
) -> Role:
  """Returns the role of this process.

  All processes of a run may be started by the same command. So an evaluator of TF_CONFIG evaluates
  whatever the mode, and where there is one the others leave evaluation to it.

  Args:
    params: of the experiment.
    mode: Model Garden's.
    cluster: of TF_CONFIG, or None.

  Raises:
    UserError: mode, strategy and TF_CONFIG do not go together.
  """
  runtime = params.runtime
  asked = runtime.distribution_strategy
  evaluation = "train" not in mode
  if cluster is not None and cluster.is_evaluator:
    mode = mode if evaluation else "continuous_eval"
    return Role(mode, _alone(runtime), None)
  if cluster is None or (len(cluster.addresses) == 1 and asked != _TOGETHER):
    if asked != _TOGETHER or evaluation:
      return Role(mode, _alone(runtime), None)
    raise UserError(
      f"runtime.distribution_strategy={_TOGETHER} needs the environment variable TF_CONFIG in "
      "every process, for example "
      '\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": '
      "0}}'; received none. On a single machine use mirrored, or one_device."
    )
  if asked != _TOGETHER:
    raise UserError(
      f"TF_CONFIG makes this process the {cluster}, but runtime.distribution_strategy={asked}, "
      f"which is of a single process. Set {_TOGETHER}, or unset TF_CONFIG."
    )
  if evaluation:
    raise UserError(
      f"TF_CONFIG makes this process the {cluster}, but --mode={mode} is of a single process. "
      'Unset TF_CONFIG, or make this process the evaluator: "task": {"type": "evaluator", "index": '
      "0}."
    )
  if "eval" in mode and cluster.has_evaluator:
    mode = "train"
  if "eval" in mode and _keeps_predictions(params):
    raise UserError(
      f"--mode={mode} with several processes: each would compute the average precision of its own "
      "share of the images, which is not that of all. Use --mode=train, and beside it "
      "--mode=continuous_eval in one process without TF_CONFIG (or as its evaluator)."
    )
  return Role(mode, asked, cluster)


def _alone(runtime: config_definitions.RuntimeConfig) -> str:
  if runtime.distribution_strategy != _TOGETHER:
    return runtime.distribution_strategy
  return "mirrored" if runtime.num_gpus > 1 else "one_device"


def _keeps_predictions(params: config_definitions.ExperimentConfig) -> bool:
  """Whether metrics come from predictions kept by each process, not from summed counts."""
  task = task_factory.get_task_cls(type(params.task))
  return task.aggregate_logs is not base_task.Task.aggregate_logs
