"""The device that operations are built for."""

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.blocked import chunked_map
from sasa_tf.ops.xla_barriers import target_device


@pytest.mark.parametrize(
  ("present", "expected"), [("C", "CPU"), ("CG", "GPU"), ("CT", "TPU"), ("GCT", "TPU"), ("", "CPU")]
)
def test_default_target_is_the_best_device_of_the_process(monkeypatch, present, expected):
  devices = [tf.config.LogicalDevice(f"/device:{kind}PU:0", f"{kind}PU") for kind in present]
  monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
  assert target_device() == expected


def test_context_manager_overrides_the_devices_of_the_process():
  own = target_device()
  with ops.use_target_device("TPU"):
    with ops.use_target_device("CPU"):
      assert target_device() == "CPU"
    assert target_device() == "TPU"
  with pytest.raises(RuntimeError), ops.use_target_device("TPU"):
    raise RuntimeError
  assert target_device() == own


def test_unknown_device():
  with (
    pytest.raises(ValueError, match=r"must be one of .*'TPU'.*; received 'tpu'"),
    ops.use_target_device("tpu"),
  ):
    pass


@pytest.mark.parametrize(("device", "chunks"), [("CPU", 8), ("GPU", 1), ("TPU", 4)])
def test_chunk_count_depends_on_the_target(device, chunks):
  with ops.use_target_device(device):
    assert chunked_map.chunk_count(64, 2**18) == chunks
