"""Which errors mean that a peer is gone, and how it is named."""

import pytest
import tensorflow as tf

from sasa_tf.errors import WorkerLostError
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.multi_worker.worker_failure import translate_collective_errors

CHIEF = Cluster({"worker": ("a:1", "b:2")}, "worker", 0)
# As TensorFlow 2.20 words it.
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


def test_the_lost_peer_is_named_with_what_to_do():
  message = message_of(tf.errors.UnavailableError(None, None, HEARTBEAT))
  assert message.startswith("the process at b:2 (worker 1) is gone (Collective ops is aborted by")
  assert "File x" not in message and "\n" not in message
  assert "the chief, process 0 of 2 at a:1 cannot train without it" in message
  assert "Start every process again" in message


@pytest.mark.parametrize(
  "error",
  [
    tf.errors.UnavailableError(None, None, RESET),
    tf.errors.AbortedError(None, None, "aborted"),
    tf.errors.DeadlineExceededError(None, None, "late"),
    tf.errors.InternalError(None, None, INTERNAL),
  ],
)
def test_an_unnamed_peer(error):
  assert message_of(error).startswith("another process of the training is gone (")


@pytest.mark.parametrize(
  ("error", "cluster"),
  [
    (tf.errors.InvalidArgumentError(None, None, "label outside"), CHIEF),
    (tf.errors.UnavailableError(None, None, RESET), None),
    (ValueError("no matter of TensorFlow"), CHIEF),
  ],
)
def test_other_errors_pass(error, cluster):
  with pytest.raises(type(error)), translate_collective_errors(cluster):
    raise error
