"""The distribution strategy over several worker processes."""

from __future__ import annotations

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker.cluster import Cluster


def build_strategy(
  cluster: Cluster, runtime: config_definitions.RuntimeConfig, num_logical_cpus: int = 0
) -> tf.distribute.Strategy:
  """Returns the strategy. Waits until all processes of the cluster have started.

  Args:
    cluster: cluster of the training.
    runtime: runtime configuration of the experiment; `num_gpus` is the number per process.
    num_logical_cpus: must be 0; a dry run uses another strategy.

  Raises:
    UserError: this process cannot listen at its address or has too few GPUs, or the configuration
      is not supported.
  """
  if num_logical_cpus:
    raise UserError(
      "--num_logical_cpus is a dry run of runtime.distribution_strategy=mirrored. For a dry run of "
      "several processes, start them on one machine, each with num_gpus=0 and a different port."
    )
  try:
    communication = tf.distribute.experimental.CommunicationOptions(
      implementation=runtime.all_reduce_alg or "auto"
    )
  except ValueError as error:
    raise UserError(
      f"runtime.all_reduce_alg={runtime.all_reduce_alg!r}: expected nccl, ring or null for "
      "several processes."
    ) from error
  available = len(tf.config.list_physical_devices("GPU"))
  if runtime.num_gpus > available:
    raise UserError(
      f"runtime.num_gpus={runtime.num_gpus} in each process, but TensorFlow sees {available} GPUs "
      f"in the {cluster}. Set runtime.num_gpus={available}, or check the driver with nvidia-smi."
    )
  cluster.check_port()
  others = [address for address in cluster.addresses if address != cluster.address]
  print(f"{cluster}: waiting for {', '.join(others) or 'no other process'}", flush=True)
  resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({job: list(addresses) for job, addresses in cluster.jobs.items()}),
    task_type=cluster.task_type,
    task_id=cluster.index,
    num_accelerators={"GPU": runtime.num_gpus},
  )
  return tf.distribute.MultiWorkerMirroredStrategy(resolver, communication)
