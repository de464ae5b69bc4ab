"""What a failed group of replicas raises."""

import contextlib

import pytest
import tensorflow as tf

from sasa_tf.errors import WorkerLostError
from sasa_tf.training.step.replica_failure import check_group, translate_group_failure


class Group:
  """A `ReplicaGroup` without replicas."""

  def __init__(self, failure=""):
    self._failure = failure

  def failure(self):
    return self._failure

  @contextlib.contextmanager
  def aborted_on_error(self):
    try:
      yield
    except BaseException:
      self._failure = self._failure or "the step failed"
      raise


def internal_error(message):
  return tf.errors.InternalError(None, None, message)


def test_without_failure():
  group = Group()
  check_group(group)
  with translate_group_failure(group):
    pass


def test_failure_of_the_group():
  group = Group("NCCL: unhandled system error")
  message = r"NCCL: unhandled system error.*rerun"
  with pytest.raises(WorkerLostError, match=message):
    check_group(group)
  with pytest.raises(WorkerLostError, match=message) as raised, translate_group_failure(group):
    raise internal_error("Op: NCCL: unhandled system error [[node]]")
  assert raised.value.exit_status == 69


@pytest.mark.parametrize(
  "error", [internal_error("invalid record"), ValueError("a bug"), KeyboardInterrupt()]
)
def test_other_errors_abort_the_group_and_are_not_changed(error):
  group = Group()
  with pytest.raises(type(error)) as raised, translate_group_failure(group):
    raise error
  assert raised.value is error
  assert group.failure() == "the step failed"


def test_error_of_one_replica_that_made_others_wait_too_long():
  group = Group("an all-reduce did not complete within 50 s")
  with (
    pytest.raises(tf.errors.InternalError, match="invalid record"),
    translate_group_failure(group),
  ):
    raise internal_error("invalid record")
