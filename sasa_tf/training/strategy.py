"""The distribution strategy of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import tensorflow as tf
from official.common import distribute_utils
from official.core import config_definitions

from sasa_tf.compat import tensorflow as tensorflow_compat
from sasa_tf.errors import UserError
from sasa_tf.training import tpu_strategy

# Each replica holds a copy of the model and has threads of its own.
MAX_LOGICAL_CPUS = 128


def create_logical_cpus(count: int) -> None:
  """Splits the CPU into `count` logical devices. Must be called before TensorFlow is used.

  Raises:
    UserError: there are too many, or TensorFlow has already initialized its devices.
  """
  if count > MAX_LOGICAL_CPUS:
    raise UserError(
      f"--num_logical_cpus={count}: expected at most {MAX_LOGICAL_CPUS}, because each of these "
      "replicas holds a copy of the model in the memory of this machine. Use 2 to 8 for a dry run."
    )
  cpu = tf.config.list_physical_devices("CPU")[0]
  try:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
    # A replica that waits for the others within an XLA program occupies a thread.
    threads = max(count + 1, os.cpu_count() or 1)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
  except RuntimeError as error:
    raise UserError(
      f"--num_logical_cpus={count} must be set before TensorFlow is initialized: {error}"
    ) from error


def build_strategy(
  runtime: config_definitions.RuntimeConfig, num_logical_cpus: int = 0
) -> tf.distribute.Strategy:
  """Returns Model Garden's strategy, or one over logical CPUs for a dry run without GPUs.

  `mirrored` with a single device is a `OneDeviceStrategy`, in which synchronized batch norm does
  not communicate.

  Args:
    runtime: runtime configuration of the experiment.
    num_logical_cpus: number of replicas on the CPU (see `create_logical_cpus`), or 0.

  Raises:
    UserError: the combination is not supported, or a device is missing.
  """
  name = runtime.distribution_strategy
  if num_logical_cpus:
    if name != "mirrored" or runtime.num_gpus:
      raise UserError(
        "--num_logical_cpus is a dry run of runtime.distribution_strategy=mirrored without GPUs; "
        f"received distribution_strategy={name!r} and num_gpus={runtime.num_gpus}. Omit the flag, "
        "or set mirrored and num_gpus=0."
      )
    return from_devices([f"CPU:{i}" for i in range(num_logical_cpus)])
  if name == "tpu":
    return tpu_strategy.build_strategy(runtime.tpu)
  available = len(tf.config.list_physical_devices("GPU"))
  if runtime.num_gpus > available:
    raise UserError(
      f"runtime.num_gpus={runtime.num_gpus}, but TensorFlow sees {available} GPUs. Set "
      f"runtime.num_gpus={available}, or check the driver with nvidia-smi and the environment "
      "variable CUDA_VISIBLE_DEVICES."
    )
  if name == "mirrored" and runtime.num_gpus in (0, 1):
    return from_devices(["GPU:0" if runtime.num_gpus else "CPU:0"])
  try:
    return distribute_utils.get_distribution_strategy(
      distribution_strategy=name,
      all_reduce_alg=runtime.all_reduce_alg,
      num_gpus=runtime.num_gpus,
    )
  except ValueError as error:
    raise UserError(
      f"runtime.distribution_strategy={name!r}: {error} Known: one_device, mirrored, "
      "multi_worker_mirrored, tpu, off."
    ) from error


def from_devices(names: Sequence[str]) -> tf.distribute.Strategy:
  """Returns the strategy with one replica on each of the devices.

  Args:
    names: names of the devices, such as "GPU:0".
  """
  if len(names) == 1:
    return tf.distribute.OneDeviceStrategy(names[0])
  return tensorflow_compat.create_mirrored_strategy(names)


def describe_topology(strategy: tf.distribute.Strategy, batches: Mapping[str, int]) -> str:
  """Returns a one-line summary of hosts, replicas and batch sizes.

  Args:
    strategy: strategy of the run.
    batches: {"task.train_data": its global batch size}, likewise for other data of the run.

  Raises:
    UserError: a batch size is not divisible by the number of replicas.
  """
  replicas, hosts = strategy.num_replicas_in_sync, _num_hosts(strategy)
  parts = [type(strategy).__name__, _count(hosts, "host"), _count(replicas, "replica")]
  for name, size in batches.items():
    if size < 1 or size % replicas:
      lower = size // replicas * replicas
      raise UserError(
        f"{name}.global_batch_size={size} is not divisible by {_count(replicas, 'replica')}. "
        f"Use a multiple of {replicas}, such as {f'{lower} or ' if lower > 0 else ''}"
        f"{max(lower, 0) + replicas}."
      )
    use = "validation batch" if "validation" in name else "batch"
    parts.append(f"{use} {size} ({size // replicas} per replica)")
  return ", ".join(parts)


def _num_hosts(strategy: tf.distribute.Strategy) -> int:
  """Returns the number of processes that feed the replicas."""
  if isinstance(strategy, tf.distribute.TPUStrategy):
    return strategy.extended.num_hosts
  resolver = strategy.cluster_resolver
  jobs = resolver.cluster_spec().as_dict() if resolver else {}
  return sum(len(jobs.get(job, ())) for job in ("chief", "worker")) or 1


def _count(number: int, noun: str) -> str:
  return f"{number} {noun}{'' if number == 1 else 's'}"
