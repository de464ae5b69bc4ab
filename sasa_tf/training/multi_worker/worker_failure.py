"""Translates TensorFlow's collective errors into "worker lost"."""

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
  """Returns the `WorkerLostError` for a TensorFlow error, or None if no worker was lost.

  Args:
    error: error of a step or of a checkpoint.
    cluster: cluster of the training.
  """
  if error.error_code not in _CODES and _COLLECTIVE not in error.message:
    return None
  return WorkerLostError(
    f"lost {_lost_worker(error.message, cluster)} ({_reason(error.message)}); the {cluster} cannot "
    "train without it. Restart every process with its command: all resume from the last checkpoint."
  )


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


def _lost_worker(message: str, cluster: Cluster) -> str:
  this_process = (cluster.task_type, cluster.index)
  for task_type, index in _TASK.findall(message):
    addresses = cluster.jobs.get(task_type, ())
    if int(index) < len(addresses) and (task_type, int(index)) != this_process:
      return f"the process at {addresses[int(index)]} ({task_type} {index})"
  return "another process of the training"


def _reason(message: str) -> str:
  """Returns TensorFlow's sentence on the collective, without the traceback of the graph."""
  start = message.find(_COLLECTIVE)
  return " ".join(message[max(start, 0) :].split())[:300]
