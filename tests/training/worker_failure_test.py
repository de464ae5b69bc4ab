"""TensorFlow errors that mean that a worker is lost, and the message for them."""

import pytest
import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.errors import WorkerLostError
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.multi_worker.worker_failure import (
  find_lost_worker,
  translate_collective_errors,
)

CHIEF = Cluster({"worker": ("a:1", "b:2")}, "worker", 0)
# Messages of TensorFlow 2.20.
HEARTBEAT = (
  "Graph execution error:\n\nDetected at node while/CollectiveReduceV2 defined at (most recent "
  "call last):\n  File x\n\nCollective ops is aborted by: Error reported from /job:worker/task:1: "
  "The following tasks are unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1"
)
RESET = "Collective ops is aborted by: recvmsg:Connection reset by peer"
LEADER = "Collective ops is aborted by: Failed to send RPC to coordination service."
INTERNAL = "Collective ops is aborted by: Collective instance 270 expected type 2"


def message_of(error, cluster=CHIEF):
  with pytest.raises(WorkerLostError) as raised, translate_collective_errors(cluster):
    raise error
  return str(raised.value)


def test_message_names_the_lost_worker_and_how_to_recover():
  message = message_of(tf.errors.UnavailableError(None, None, HEARTBEAT))
  assert message.startswith("lost the process at b:2 (worker 1) (Collective ops is aborted by")
  assert "File x" not in message and "\n" not in message
  assert "the chief, process 0 of 2 at a:1 cannot train without it" in message
  assert "Restart every process" in message


@pytest.mark.parametrize(
  "error",
  [
    tf.errors.UnavailableError(None, None, RESET),
    tf.errors.AbortedError(None, None, "aborted"),
    tf.errors.DeadlineExceededError(None, None, "late"),
    tf.errors.InternalError(None, None, INTERNAL),
  ],
)
def test_message_without_an_address(error):
  assert message_of(error).startswith("lost another process of the training (")


@pytest.mark.parametrize(
  ("error", "cluster"),
  [
    (tf.errors.InvalidArgumentError(None, None, "label outside"), CHIEF),
    (tf.errors.UnavailableError(None, None, RESET), None),
    (ValueError("not a TensorFlow error"), CHIEF),
  ],
)
def test_other_errors_are_not_translated(error, cluster):
  with pytest.raises(type(error)), translate_collective_errors(cluster):
    raise error


def test_message_without_an_address_names_the_first_process_that_does_not_answer(monkeypatch):
  cluster = Cluster({"chief": ("a:1",), "worker": ("b:2", "c:3", "d:4")}, "worker", 2)
  asked = []

  def answers(task, timeout_seconds):
    asked.append(task)
    return not task.endswith("/task:1")

  monkeypatch.setattr(compat, "answers_in_cluster", answers)
  message = message_of(tf.errors.UnavailableError(None, None, LEADER), cluster)
  assert message.startswith("lost the process at c:3 (worker 1) (Collective ops is aborted by: F")
  assert asked == [
    "/job:chief/replica:0/task:0",
    "/job:worker/replica:0/task:0",
    "/job:worker/replica:0/task:1",
  ]


def test_no_worker_is_lost():
  for _ in range(2):
    assert find_lost_worker(CHIEF) == ""


def test_aborted_collectives_name_the_lost_worker(monkeypatch):
  error = tf.errors.UnavailableError(None, None, HEARTBEAT)
  monkeypatch.setattr(tf.raw_ops, "CollectiveReduceV2", raise_(error))
  assert find_lost_worker(CHIEF).startswith("lost the process at b:2 (worker 1) (Collective ops")


def test_other_errors_of_the_collective_are_raised(monkeypatch):
  error = tf.errors.InvalidArgumentError(None, None, "wrong group size")
  monkeypatch.setattr(tf.raw_ops, "CollectiveReduceV2", raise_(error))
  with pytest.raises(tf.errors.InvalidArgumentError, match="wrong group size"):
    find_lost_worker(CHIEF)


def raise_(error):
  def function(**arguments):
    raise error

  return function
