"""The loss of a peer: how it is told."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from sasa_tf.errors import WorkerLostError
from sasa_tf.training.multi_worker.cluster import Cluster

_CODES = (tf.errors.UNAVAILABLE, tf.errors.ABORTED, tf.errors.DEADLINE_EXCEEDED)
_COLLECTIVE = "Collective ops is aborted"
_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")


def worker_lost_error(error: tf.errors.OpError, cluster: Cluster) -> WorkerLostError | None:
  """Returns what an error of TensorFlow means for the cluster, None if no peer was lost."""
  if error.error_code not in _CODES and _COLLECTIVE not in error.message:
    return None
  return WorkerLostError(
    f"{_lost(error.message, cluster)} is gone ({_reason(error.message)}); the {cluster} cannot "
    "train without it. Start every process again with the command that it had: all go on from the "
    "last checkpoint."
  )


@contextlib.contextmanager
def translate_collective_errors(cluster: Cluster | None) -> Iterator[None]:
  """Raises a `WorkerLostError` in the place of TensorFlow's error within the block.

  TensorFlow notices a process that has ended or hangs after ten seconds without a heartbeat, at
  once if it was talking to it. Its communication cannot be mended then within a process.

  Args:
    cluster: of the training; None for a single process, which has no peers to lose.
  """
  try:
    yield
  except tf.errors.OpError as error:
    lost = worker_lost_error(error, cluster) if cluster is not None else None
    if lost is None:
      raise
    raise lost from error


def _lost(message: str, cluster: Cluster) -> str:
  for task_type, index in _TASK.findall(message):
    addresses = cluster.jobs.get(task_type, ())
    if int(index) < len(addresses) and (task_type, int(index)) != (
      cluster.task_type,
      cluster.index,
    ):
      return f"the process at {addresses[int(index)]} ({task_type} {index})"
  return "another process of the training"


def _reason(message: str) -> str:
  """TensorFlow's sentence on the communication, without the traceback of the graph around it."""
  start = message.find(_COLLECTIVE)
  return " ".join(message[max(start, 0) :].split())[:300]
