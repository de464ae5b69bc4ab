"""Translates the failure of a group of replicas into "worker lost"."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from sasa_tf.collectives.replica_group import ReplicaGroup
from sasa_tf.errors import WorkerLostError


def check_group(group: ReplicaGroup) -> None:
  """Raises a `WorkerLostError` if the group has failed.

  The devices may have continued with wrong sums, so that nothing must be saved.
  """
  if failure := group.failure():
    raise _lost(failure)


@contextlib.contextmanager
def translate_group_failure(group: ReplicaGroup) -> Iterator[None]:
  """Aborts the group if the block raises, because a replica may wait for one that failed.

  Args:
    group: the replicas that the block runs.

  Raises:
    WorkerLostError: the block raised because the group has failed. Any other error, such as that of
      an invalid record, is not changed.
  """
  try:
    with group.aborted_on_error():
      yield
  except tf.errors.OpError as error:
    failure = group.failure()
    if failure in error.message:
      raise _lost(failure) from error
    raise


def _lost(failure: str) -> WorkerLostError:
  return WorkerLostError(
    f"the replicas cannot train together any more: {failure}. To resume from the last checkpoint, "
    "rerun the same command."
  )
