"""Training in several processes: how they meet, what each may write, how they keep in step."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator

import tensorflow as tf
from official.core import config_definitions, input_reader

import sasa_tf
from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker import config_sync
from sasa_tf.training.multi_worker.cluster import Cluster

# They tell a process who it is, and so differ.
_OF_ONE_PROCESS = ("runtime.task_index",)


def build_strategy(
  cluster: Cluster, runtime: config_definitions.RuntimeConfig, num_logical_cpus: int = 0
) -> tf.distribute.Strategy:
  """Returns the strategy once all processes of the cluster are there.

  Args:
    cluster: of the training.
    runtime: of the experiment; `num_gpus` is that of each process.
    num_logical_cpus: of a dry run of another strategy, so 0.

  Raises:
    UserError: this process cannot listen at its address, or has fewer GPUs than asked for, or the
      configuration asks for what there is not.
  """
  if num_logical_cpus:
    raise UserError(
      "--num_logical_cpus is a dry run of runtime.distribution_strategy=mirrored. For one of "
      "several processes, start them on one machine, each with num_gpus=0 and a port of its own."
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
  print(f"{cluster}: waiting for {', '.join(others) or 'nobody'}", flush=True)
  resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({job: list(addresses) for job, addresses in cluster.jobs.items()}),
    task_type=cluster.task_type,
    task_id=cluster.index,
    num_accelerators={"GPU": runtime.num_gpus},
  )
  return tf.distribute.MultiWorkerMirroredStrategy(resolver, communication)


def sync_experiment(
  distribution: tf.distribute.Strategy,
  cluster: Cluster,
  experiment: str,
  params: config_definitions.ExperimentConfig,
  mode: str,
) -> config_definitions.ExperimentConfig:
  """Returns the configuration to train with, after all processes have shown that theirs is alike.

  Each process trains on its share of the files, in the same order of all of them. So without a seed
  of the user's they get one that all share, new in every run: Model Garden draws one in each
  process, and then their shares overlap.

  Args:
    distribution: of the training.
    cluster: its processes.
    experiment: name that the configuration came from.
    params: the configuration.
    mode: Model Garden's.

  Raises:
    UserError: configurations, versions or input files differ, told by every process.
  """
  facts = {
    "the version of sasa_tf": sasa_tf.__version__,
    "the version of TensorFlow": tf.__version__,
    "--experiment": experiment,
    "--mode": mode,
    **config_sync.flatten(params.as_dict()),
  }
  for name in _OF_ONE_PROCESS:
    facts.pop(name, None)
  files = {name: _files(getattr(params.task, name)) for name in ("train_data", "validation_data")}
  for name, paths in files.items():
    # Every machine may have its own copy in a folder of its own.
    facts[f"the files of task.{name}.input_path"] = [os.path.basename(path) for path in paths]
  own = config_sync.WorkerConfig(str(cluster), facts, random.SystemRandom().randrange(1 << 31))
  processes = len(cluster.addresses)
  chief = config_sync.sync_config(distribution, own, processes)
  count = len(files["train_data"])
  if cluster.is_chief and count > processes and count % processes:
    print(
      f"warning: task.train_data has {count} files for {processes} processes, which read whole "
      "files: images of some are trained more often than those of others. Write a multiple of "
      f"{processes} files (make_tfrecords --num_shards).",
      file=sys.stderr,
    )
  data = {
    name: getattr(params.task, name).replace(input_path=paths)
    for name, paths in files.items()
    if paths
  }
  train_data = data.get("train_data", params.task.train_data)
  if train_data.seed is None:
    data["train_data"] = train_data.replace(seed=chief.seed)
  return params.replace(
    task=params.task.replace(**data),
    # Model Garden's answer to SIGTERM restores a checkpoint in the chief alone; we have our own.
    trainer=params.trainer.replace(preemption_on_demand_checkpoint=False),
  )


def _files(data: config_definitions.DataConfig) -> list[str]:
  """Returns the TFRecord files in an order that is the same on every machine."""
  if not isinstance(data.input_path, (str, list, tuple)) or not data.input_path:
    return []
  return sorted(
    input_reader.match_files(data.input_path), key=lambda path: (os.path.basename(path), path)
  )


@contextlib.contextmanager
def output_directory(
  model_dir: str, writes: bool, params: config_definitions.ExperimentConfig
) -> Iterator[str]:
  """Yields where this process writes: model_dir, or a directory that is removed at the end.

  To save, all processes must read the variables together, so all write checkpoints.

  Args:
    model_dir: of the run.
    writes: whether this process may write there.
    params: of the experiment.
  """
  if writes:
    yield model_dir
    return
  with tempfile.TemporaryDirectory(prefix="sasa_tf_worker_") as scratch:
    best = params.trainer.best_checkpoint_export_subdir
    source = os.path.join(model_dir, best, "info.json")
    if best and tf.io.gfile.exists(source):
      # So that all processes agree which evaluation is the best so far.
      tf.io.gfile.makedirs(os.path.join(scratch, best))
      tf.io.gfile.copy(source, os.path.join(scratch, best, "info.json"))
    yield scratch
