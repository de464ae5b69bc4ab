"""The first all-reduce of a group does not wait forever, neither for a device nor for NCCL."""

import threading

import pytest
import tensorflow as tf

from sasa_tf.collectives import self_test
from sasa_tf.errors import UserError
from tests.collectives.replica_threads import DEVICE, needs_library, open_group


@needs_library
def test_right_sums():
  with open_group(2) as group:
    self_test.check_sums(group, [DEVICE] * 2)
    assert group.failure() == ""


@needs_library
def test_sums_of_a_new_group():
  group = self_test.create_tested_group([DEVICE] * 2, 60.0)
  assert (group.size, group.failure()) == (2, "")
  group.close()


def test_connections_that_are_never_complete(monkeypatch):
  monkeypatch.setattr(self_test, "_TIMEOUT_SECONDS", 0.2)
  monkeypatch.setattr(self_test, "ReplicaGroup", lambda devices: threading.Event().wait())
  with pytest.raises(UserError, match=r"were not connected within .* NCCL_DEBUG"):
    self_test.create_tested_group([DEVICE] * 2)


@needs_library
def test_replica_that_does_not_arrive(monkeypatch):
  """The other replica waits for it until the group is aborted."""
  monkeypatch.setattr(self_test, "_TIMEOUT_SECONDS", 2.0)
  with open_group(3) as group, pytest.raises(UserError, match=r"took longer than 2 s"):
    self_test.check_sums(group, [DEVICE] * 2)


@needs_library
def test_device_that_hangs(monkeypatch):
  monkeypatch.setattr(self_test, "_TIMEOUT_SECONDS", 0.2)
  monkeypatch.setattr(self_test, "_ABORT_SECONDS", 0.2)
  hang = threading.Event()

  class Program:
    def __call__(self):
      hang.wait()

  class Function:
    def get_concrete_function(self):
      return Program()

  monkeypatch.setattr(tf, "function", lambda *arguments, **options: Function())
  with open_group(2) as group, pytest.raises(UserError, match="could not be aborted"):
    self_test.check_sums(group, [DEVICE] * 2)
  hang.set()


@needs_library
def test_wrong_sums(monkeypatch):
  with open_group(2) as group:
    group.first_replica = 1  # its replicas contribute 2 and 3 instead of 1 and 2
    with pytest.raises(UserError, match=r"wrong sums: expected 3.0; received \[5.0\]"):
      self_test.check_sums(group, [DEVICE] * 2)
    assert "wrong sums" in group.failure()
