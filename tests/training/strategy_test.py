"""Strategies by name, the topology line, and errors for missing hardware."""

import socket

import pytest
import tensorflow as tf
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.training import strategy


def runtime(**changes):
  return config_definitions.RuntimeConfig(**changes)


@pytest.mark.parametrize("name", ["one_device", "mirrored"])
def test_single_device_is_not_mirrored(name):
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
def test_unsupported_strategies_raise_an_error(changes, num_logical_cpus, message):
  with pytest.raises(UserError, match=message):
    strategy.build_strategy(runtime(**changes), num_logical_cpus)


@pytest.mark.parametrize(
  ("address", "message"),
  [
    (None, "needs runtime.tpu, the name or address of a TPU; received runtime.tpu=None"),
    ("", "needs runtime.tpu, the name or address"),
    ("local", "runtime.tpu=local: failed to initialize the TPU cores of this machine: "),
    ("grpc://127.0.0.1:{port}", "failed to connect to 127.0.0.1, port .*Connection refused"),
  ],
)
def test_missing_tpu_raises_an_error(address, message):
  if tf.config.list_physical_devices("TPU"):
    pytest.skip("this machine has a TPU")
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))  # reserved, so that no process listens there
    if address:
      address = address.format(port=unused.getsockname()[1])
    with pytest.raises(UserError, match=message) as raised:
      strategy.build_strategy(runtime(distribution_strategy="tpu", tpu=address))
  assert "TPU VM" in str(raised.value) and "mirrored or one_device" in str(raised.value)
  assert "\n" not in str(raised.value)


def test_topology_line():
  one = tf.distribute.OneDeviceStrategy("CPU:0")
  batches = {"task.train_data": 6, "task.validation_data": 4}
  assert strategy.describe_topology(one, batches) == (
    "OneDeviceStrategy, 1 host, 1 replica, batch 6 (6 per replica), "
    "validation batch 4 (4 per replica)"
  )


class _FourReplicas:
  """The attributes of a strategy over two hosts that the topology line needs."""

  num_replicas_in_sync = 4
  cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1"], "evaluator": ["c:1"]})
  )


def test_topology_line_of_several_hosts():
  line = strategy.describe_topology(_FourReplicas(), {"task.train_data": 32})
  assert line == "_FourReplicas, 2 hosts, 4 replicas, batch 32 (8 per replica)"


@pytest.mark.parametrize(
  ("name", "size", "message"),
  [
    ("task.train_data", 6, r"train_data\.global_batch_size=6 is not divisible by 4 .* 4 or 8\."),
    ("task.validation_data", 2, r"validation_data\.global_batch_size=2 .* such as 4\."),
    ("task.validation_data", 0, r"validation_data\.global_batch_size=0 .* such as 4\."),
  ],
)
def test_indivisible_batch_sizes_raise_an_error(name, size, message):
  with pytest.raises(UserError, match=message):
    strategy.describe_topology(_FourReplicas(), {name: size})
