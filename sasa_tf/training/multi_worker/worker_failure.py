"""Detects the loss of a worker, and translates TensorFlow's collective errors into it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from sasa_tf.compat import tensorflow as tensorflow_compat
from sasa_tf.errors import WorkerLostError
from sasa_tf.training.multi_worker.cluster import Cluster

_CODES = (tf.errors.UNAVAILABLE, tf.errors.ABORTED, tf.errors.DEADLINE_EXCEEDED)
_COLLECTIVE = "Collective ops is aborted"
_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")

# Keys of the collective of `find_lost_worker`, which those of strategies do not reach.
_FIRST_GROUP_KEY = 1 << 30
_INSTANCE_KEY = 1 << 30

_ANSWER_SECONDS = 5.0


def worker_lost_error(error: tf.errors.OpError, cluster: Cluster) -> WorkerLostError | None:
  """Returns the `WorkerLostError` for a TensorFlow error, or None if no worker was lost.

  Args:
    error: error of a step or of a checkpoint.
    cluster: cluster of the training.
  """
  if not _is_loss(error):
    return None
  return WorkerLostError(
    f"{_describe(error, cluster)}; the {cluster} cannot train without it. Restart every process "
    "with its command: all resume from the last checkpoint."
  )


def find_lost_worker(cluster: Cluster) -> str:
  """Returns "" or which worker is lost, ten seconds after its last heartbeat.

  The workers send heartbeats to the first one. If one is missing, TensorFlow aborts all collectives
  of all processes, with the reason as error. Here it is the error of a collective of this process
  alone, which otherwise completes immediately.

  Args:
    cluster: cluster of the training.
  """
  own_number = cluster.addresses.index(cluster.address)
  try:
    with tf.device("CPU:0"):
      tf.raw_ops.CollectiveReduceV2(
        input=tf.zeros([1]),
        group_size=tf.constant(1),
        group_key=tf.constant(_FIRST_GROUP_KEY + own_number),
        instance_key=tf.constant(_INSTANCE_KEY),
        ordering_token=[],
        merge_op="Add",
        final_op="Id",
        communication_hint="ring",
      )
  except tf.errors.OpError as error:
    if not _is_loss(error):
      raise
    return _describe(error, cluster)
  return ""


def find_silent_worker(cluster: Cluster) -> str:
  """Returns the first worker that does not answer within five seconds, or ""."""
  for task_type, addresses in cluster.jobs.items():
    for index in range(len(addresses)):
      task = f"/job:{task_type}/replica:0/task:{index}"
      if (task_type, index) == (cluster.task_type, cluster.index):
        continue
      if not tensorflow_compat.answers_in_cluster(task, _ANSWER_SECONDS):
        return _name(cluster, task_type, index)
  return ""


@contextlib.contextmanager
def translate_collective_errors(cluster: Cluster | None) -> Iterator[None]:
  """Raises a `WorkerLostError` instead of TensorFlow's error within the block.

  TensorFlow detects a process that has exited or hangs after ten seconds without a heartbeat, or
  immediately during communication. A process cannot restore its collectives afterwards.

  Args:
    cluster: cluster of the training, or None for a single process.
  """
  try:
    yield
  except tf.errors.OpError as error:
    lost = worker_lost_error(error, cluster) if cluster is not None else None
    if lost is None:
      raise
    raise lost from error


def _is_loss(error: tf.errors.OpError) -> bool:
  return error.error_code in _CODES or _COLLECTIVE in error.message


def _describe(error: tf.errors.OpError, cluster: Cluster) -> str:
  return f"lost {_lost_worker(error.message, cluster)} ({_reason(error.message)})"


def _lost_worker(message: str, cluster: Cluster) -> str:
  """Returns the process that the message names, else the first one that does not answer."""
  this_process = (cluster.task_type, cluster.index)
  for task_type, index in _TASK.findall(message):
    addresses = cluster.jobs.get(task_type, ())
    if int(index) < len(addresses) and (task_type, int(index)) != this_process:
      return _name(cluster, task_type, int(index))
  return find_silent_worker(cluster) or "another process of the training"


def _name(cluster: Cluster, task_type: str, index: int) -> str:
  return f"the process at {cluster.jobs[task_type][index]} ({task_type} {index})"


def _reason(message: str) -> str:
  """Returns TensorFlow's sentence on the collective, without the traceback of the graph."""
  start = message.find(_COLLECTIVE)
  return " ".join(message[max(start, 0) :].split())[:300]
