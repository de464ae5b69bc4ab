"""The distribution strategy that a run's configuration asks for."""

from __future__ import annotations

import tensorflow as tf
from official.common import distribute_utils
from official.core import config_definitions

from sasa_tf.errors import UserError


def make_logical_cpus(count: int) -> None:
  """Splits the processor into `count` devices; before anything else touches TensorFlow.

  Raises:
    UserError: TensorFlow has already set up its devices.
  """
  cpu = tf.config.list_physical_devices("CPU")[0]
  try:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
  except RuntimeError as error:
    raise UserError(f"--num_logical_cpus={count} came too late: {error}") from error


def build_strategy(
  runtime: config_definitions.RuntimeConfig, num_logical_cpus: int = 0
) -> tf.distribute.Strategy:
  """Returns Model Garden's strategy, or one over logical CPUs for a dry run without GPUs.

  Args:
    runtime: of the experiment.
    num_logical_cpus: replicas on the processor (see `make_logical_cpus`), or 0.

  Raises:
    UserError: a combination that does not exist, or more GPUs than there are.
  """
  if num_logical_cpus:
    if runtime.distribution_strategy != "mirrored" or runtime.num_gpus:
      raise UserError(
        "--num_logical_cpus is a dry run of runtime.distribution_strategy=mirrored without GPUs; "
        f"received distribution_strategy={runtime.distribution_strategy!r} and "
        f"num_gpus={runtime.num_gpus}. Leave the flag away, or set mirrored and num_gpus=0."
      )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_logical_cpus)])
  available = len(tf.config.list_physical_devices("GPU"))
  if runtime.num_gpus > available:
    raise UserError(
      f"runtime.num_gpus={runtime.num_gpus}, but TensorFlow sees {available} GPUs. Set "
      f"runtime.num_gpus={available}, or check the driver with nvidia-smi."
    )
  try:
    return distribute_utils.get_distribution_strategy(
      distribution_strategy=runtime.distribution_strategy,
      all_reduce_alg=runtime.all_reduce_alg,
      num_gpus=runtime.num_gpus,
      tpu_address=runtime.tpu,
    )
  except ValueError as error:
    raise UserError(
      f"runtime.distribution_strategy={runtime.distribution_strategy!r}: {error}"
    ) from error


def describe(strategy: tf.distribute.Strategy, global_batch_size: int) -> str:
  """Returns one line on the topology, for people.

  Raises:
    UserError: the batch does not divide among the replicas.
  """
  replicas = strategy.num_replicas_in_sync
  if global_batch_size % replicas:
    raise UserError(
      f"task.train_data.global_batch_size={global_batch_size} does not divide among {replicas} "
      f"replicas. Use a multiple of {replicas}."
    )
  return (
    f"{type(strategy).__name__}, {replicas} replica{'s' if replicas > 1 else ''}, "
    f"batch {global_batch_size} ({global_batch_size // replicas} a replica)"
  )
