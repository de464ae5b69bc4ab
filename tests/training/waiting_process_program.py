"""A process of a cluster whose replica waits in an all-reduce within its program.

python -m tests.training.waiting_process_program, with TF_CONFIG

As if another process did not arrive, with the group of a CPU instead of NCCL's: only one of its two
replicas runs.
"""

import functools

from sasa_tf.bin import program


def main(argv):
  """Waits until the group fails, and ends with the reason like a training."""
  import tensorflow as tf
  from official.core import config_definitions

  from sasa_tf.collectives.all_reduce import ProgramAllReduce
  from sasa_tf.collectives.replica_group import ReplicaGroup
  from sasa_tf.training.multi_worker import config_sync
  from sasa_tf.training.multi_worker.cluster import read_cluster
  from sasa_tf.training.multi_worker.strategy import build_strategy
  from sasa_tf.training.multi_worker.worker_failure import find_lost_worker
  from sasa_tf.training.step.all_reduce_mode import (
    SEVERAL_PROCESSES_TIMEOUT_SECONDS,
    Processes,
  )
  from sasa_tf.training.step.process_watch import aborted_on_loss
  from sasa_tf.training.step.replica_failure import translate_group_failure

  cluster = read_cluster()
  strategy = build_strategy(cluster, config_definitions.RuntimeConfig(num_gpus=0))
  devices = [strategy.extended.worker_devices[0]] * 2
  group = ReplicaGroup(devices, SEVERAL_PROCESSES_TIMEOUT_SECONDS)

  @tf.function(jit_compile=True, autograph=False)
  def reduce():
    return ProgramAllReduce(group, 0)([tf.ones([4])])

  config_sync.all_gather_strings(strategy, "ready", len(cluster.addresses))
  assert find_lost_worker(cluster) == ""
  print("waits", flush=True)
  processes = Processes(0, list, functools.partial(find_lost_worker, cluster), str)
  with aborted_on_loss(group, processes), translate_group_failure(group):
    reduce()


if __name__ == "__main__":
  program.run(main)
