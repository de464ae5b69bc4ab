"""Parsing of TF_CONFIG and the errors for a malformed one."""

import json
import socket

import pytest

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker.cluster import Cluster, read_cluster

TWO = {"worker": ["a:1", "b:2"]}


def tf_config(cluster, task):
  return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


@pytest.mark.parametrize("text", ["", " ", "{}"])
def test_without_tf_config_there_is_no_cluster(text):
  assert read_cluster(environment={}) is None
  assert read_cluster(environment={"TF_CONFIG": text}) is None


@pytest.mark.parametrize(
  ("cluster", "task", "addresses", "is_chief", "name"),
  [
    (TWO, ("worker", 0), ("a:1", "b:2"), True, "chief, process 0 of 2 at a:1"),
    (TWO, ("worker", "1"), ("a:1", "b:2"), False, "worker, process 1 of 2 at b:2"),
    ({**TWO, "chief": ["c:3"]}, ("worker", 0), ("c:3", "a:1", "b:2"), False, "process 1 of 3"),
    ({**TWO, "chief": ["c:3"]}, ("chief", 0), ("c:3", "a:1", "b:2"), True, "chief, process 0 of 3"),
    ({**TWO, "chief": []}, ("worker", 0), ("a:1", "b:2"), True, "chief, process 0 of 2"),
    (TWO, ("evaluator", 0), ("a:1", "b:2"), False, "evaluator"),
  ],
)
def test_roles(cluster, task, addresses, is_chief, name):
  task_type, index = task
  received = read_cluster(environment=tf_config(cluster, {"type": task_type, "index": index}))
  assert received.addresses == addresses
  assert received.is_chief == is_chief
  assert received.is_evaluator == (task_type == "evaluator")
  assert name in str(received)
  assert not received.has_evaluator


def test_evaluator_in_the_cluster_does_not_train():
  cluster = {**TWO, "evaluator": ["c:3"]}
  received = read_cluster(environment=tf_config(cluster, {"type": "worker", "index": 0}))
  assert received.has_evaluator and received.addresses == ("a:1", "b:2")


def test_model_garden_fields():
  received = read_cluster("a:1, b:2", 1, environment={})
  assert received == Cluster({"worker": ("a:1", "b:2")}, "worker", 1)
  with pytest.raises(UserError, match=r"task_index from 0 to 1, different in every process.*-1"):
    read_cluster("a:1,b:2", -1, environment={})
  with pytest.raises(
    UserError, match=r"runtime\.worker_hosts: expected .* host:port.*received 'b'"
  ):
    read_cluster("a:1,b", 0, environment={})


WORKER_0 = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[" * 100_000, "not JSON: maximum recursion"),
    ("{'cluster'", "not JSON: Expecting property.*Expected for example.*received \"{'cluster'"),
    ("[]", r"it is not a JSON object but \[\]"),
    ('{"a": 1}', "it has no 'cluster' and 'task'"),
    ('{"cluster": {}}', "it has no 'task'"),
    ('{"cluster": [], "task": {}}', "'cluster' is not a JSON object"),
    ({"cluster": {}, "task": WORKER_0}, "has neither chief nor worker"),
    ({"cluster": {"ps": ["a:1"]}, "task": WORKER_0}, "its cluster has ps; .*no parameter servers"),
    ({"cluster": {"worker": "a:1"}, "task": WORKER_0}, "'worker' of its cluster is not a list"),
    ({"cluster": {"worker": ["a"]}, "task": WORKER_0}, "host:port.*received 'a'"),
    ({"cluster": {"worker": ["a:0"]}, "task": WORKER_0}, "host:port.*received 'a:0'"),
    ({"cluster": {"worker": ["a:1", "a:1"]}, "task": WORKER_0}, "has a:1 more than once"),
    ({"cluster": {"chief": ["a:1", "b:1"]}, "task": WORKER_0}, "has 2 chiefs instead of one"),
    (
      {"cluster": TWO, "task": {"type": "boss", "index": 0}},
      "'boss', not one of chief, worker, ev",
    ),
    ({"cluster": TWO, "task": {"index": 0}}, "'type' is None"),
    ({"cluster": TWO, "task": {"type": "worker"}}, "'index' is None, not a number"),
    (
      {"cluster": TWO, "task": {"type": "worker", "index": 2}},
      "worker 2, but .* has 2.*from 0 to 1",
    ),
    (
      {"cluster": TWO, "task": {"type": "chief", "index": 0}},
      "chief 0, but the cluster has 0 of ty",
    ),
  ],
)
def test_malformed_tf_config_raises_an_error(text, message):
  text = text if isinstance(text, str) else json.dumps(text)
  with pytest.raises(UserError, match=message):
    read_cluster(environment={"TF_CONFIG": text})


def test_port_in_use_raises_an_error():
  with socket.socket() as other:
    # As gRPC listens: TensorFlow would share the port with it.
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("localhost", 0))
    other.listen()
    cluster = Cluster({"worker": (f"localhost:{other.getsockname()[1]}",)}, "worker", 0)
    with pytest.raises(UserError, match=r"its port cannot be used here.*already in use"):
      cluster.check_port()
  cluster.check_port()
