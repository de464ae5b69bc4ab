"""Runs the programs of several replicas on one CPU, each in a thread."""

import concurrent.futures
import contextlib

import pytest
import tensorflow as tf

from sasa_tf.collectives.all_reduce import ProgramAllReduce
from sasa_tf.collectives.replica_group import ReplicaGroup
from sasa_tf.native import library

needs_library = pytest.mark.skipif(
  not library.load().platforms, reason="the library has not been built"
)
DEVICE = "/job:localhost/replica:0/task:0/device:CPU:0"


@contextlib.contextmanager
def open_group(replicas, timeout_seconds=60.0):
  """Yields a group of replicas that share one CPU."""
  group = ReplicaGroup([DEVICE] * replicas, timeout_seconds, timeout_seconds)
  yield group
  group.close()


def run_replicas(group, program, jit_compile=True, calls=1):
  """Calls `program(all_reduce, replica)` as one XLA program per replica; returns their futures."""

  def run(replica):
    def traced():
      return program(ProgramAllReduce(group, replica), replica)

    if jit_compile is None:
      return traced()
    function = tf.function(traced, jit_compile=jit_compile).get_concrete_function()
    return [function() for _ in range(calls)][-1]

  with concurrent.futures.ThreadPoolExecutor(group.size) as threads:
    return [threads.submit(run, replica) for replica in range(group.size)]
