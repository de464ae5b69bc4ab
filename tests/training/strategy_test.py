"""Strategies by name, the topology line, and what there is no hardware for."""

import socket

import pytest
import tensorflow as tf
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.training import strategy


def runtime(**changes):
  return config_definitions.RuntimeConfig(**changes)


@pytest.mark.parametrize("name", ["one_device", "mirrored"])
def test_single_device_is_no_mirror(name):
  built = strategy.build_strategy(runtime(distribution_strategy=name))
  assert isinstance(built, tf.distribute.OneDeviceStrategy)
  assert built.extended.worker_devices[0].endswith("/device:CPU:0")


@pytest.mark.parametrize(
  ("changes", "num_logical_cpus", "message"),
  [
    ({"num_gpus": 64}, 0, r"num_gpus=64, but TensorFlow sees \d+ GPUs\. Set runtime\.num_gpus="),
    ({"distribution_strategy": "mirored"}, 0, "'mirored'.*Known: one_device, mirrored,"),
    ({"distribution_strategy": "one_device"}, 2, "--num_logical_cpus is a dry run of"),
    ({"num_gpus": 1}, 2, "--num_logical_cpus is a dry run of.*num_gpus=1"),
  ],
)
def test_what_does_not_exist(changes, num_logical_cpus, message):
  with pytest.raises(UserError, match=message):
    strategy.build_strategy(runtime(**changes), num_logical_cpus)


@pytest.mark.parametrize(
  ("address", "message"),
  [
    (None, "needs runtime.tpu to say which one; received runtime.tpu=None"),
    ("", "needs runtime.tpu to say which one"),
    ("local", "runtime.tpu=local: tried to initialise the TPU cores of this machine, without"),
    ("grpc://127.0.0.1:{port}", "tried to connect to 127.0.0.1, port .*Connection refused"),
  ],
)
def test_tpu_up_to_the_missing_hardware(address, message):
  if tf.config.list_physical_devices("TPU"):
    pytest.skip("this machine has a TPU")
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))  # taken, so that nobody listens there
    if address:
      address = address.format(port=unused.getsockname()[1])
    with pytest.raises(UserError, match=message) as told:
      strategy.build_strategy(runtime(distribution_strategy="tpu", tpu=address))
  assert "TPU VM" in str(told.value) and "mirrored or one_device" in str(told.value)
  assert "\n" not in str(told.value)


def test_topology_line():
  one = tf.distribute.OneDeviceStrategy("CPU:0")
  batches = {"task.train_data": 6, "task.validation_data": 4}
  assert strategy.describe_topology(one, batches) == (
    "OneDeviceStrategy, 1 host, 1 replica, batch 6 (6 a replica), validation batch 4 (4 a replica)"
  )


class _FourReplicas:
  """All that the topology line reads of a strategy over two hosts."""

  num_replicas_in_sync = 4
  cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1"], "evaluator": ["c:1"]})
  )


def test_topology_line_of_several_hosts():
  line = strategy.describe_topology(_FourReplicas(), {"task.train_data": 32})
  assert line == "_FourReplicas, 2 hosts, 4 replicas, batch 32 (8 a replica)"


@pytest.mark.parametrize(
  ("name", "size", "message"),
  [
    ("task.train_data", 6, r"train_data\.global_batch_size=6 does not divide among 4 .* 4 or 8\."),
    ("task.validation_data", 2, r"validation_data\.global_batch_size=2 .* such as 4\."),
    ("task.validation_data", 0, r"validation_data\.global_batch_size=0 .* such as 4\."),
  ],
)
def test_batches_that_do_not_divide(name, size, message):
  with pytest.raises(UserError, match=message):
    strategy.describe_topology(_FourReplicas(), {name: size})
