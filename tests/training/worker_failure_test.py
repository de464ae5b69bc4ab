"""TensorFlow errors that mean that a worker is lost, and the message for them."""

import pytest
import tensorflow as tf

from sasa_tf.errors import WorkerLostError
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.multi_worker.worker_failure import translate_collective_errors

CHIEF = Cluster({"worker": ("a:1", "b:2")}, "worker", 0)
# Messages of TensorFlow 2.20.
HEARTBEAT = (
  "Graph execution error:\n\nDetected at node while/CollectiveReduceV2 defined at (most recent "
  "call last):\n  File x\n\nCollective ops is aborted by: Error reported from /job:worker/task:1: "
  "The following tasks are unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1"
)
RESET = "Collective ops is aborted by: recvmsg:Connection reset by peer"
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
