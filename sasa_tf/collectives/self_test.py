"""A first all-reduce of a group, which shows whether it works on these devices."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.collectives.all_reduce import ProgramAllReduce
from sasa_tf.collectives.replica_group import ReplicaGroup
from sasa_tf.errors import UserError

# NCCL has different algorithms for small and large arrays, and connects the GPUs for each of them.
_SIZES = {"CPU": (1,), "CUDA": (1, 2**22)}

# Compilation of the small program included, also on a busy machine.
_TIMEOUT_SECONDS = 120.0

# Until programs have ended whose group was aborted.
_ABORT_SECONDS = 30.0


def create_tested_group(devices: Sequence[str], *arguments: Any, **options: Any) -> ReplicaGroup:
  """Returns a new group whose first all-reduce of known numbers was right.

  Does not wait forever, neither for connections between the GPUs nor for the sums.

  Args:
    devices: the device of each replica of this process.
    *arguments: further ones of `ReplicaGroup`.
    **options: further ones of `ReplicaGroup`.

  Raises:
    UserError: the group cannot be created, or does not work.
  """
  created = _start(functools.partial(ReplicaGroup, devices, *arguments, **options))
  try:
    group = created.result(_TIMEOUT_SECONDS)
  except concurrent.futures.TimeoutError as error:
    raise UserError(
      f"the replicas were not connected within {_TIMEOUT_SECONDS:.0f} s. NCCL_DEBUG=INFO makes "
      "NCCL print what it does."
    ) from error
  check_sums(group, devices)
  return group


def check_sums(group: ReplicaGroup, devices: Sequence[str]) -> None:
  """Reduces known numbers. NCCL opens its connections meanwhile.

  Args:
    group: the group.
    devices: the device of each replica of this process.

  Raises:
    UserError: the sums are wrong, or the group failed.
  """
  expected = group.size * (group.size + 1) / 2

  def trace(replica: int) -> Callable[[], list[tf.Tensor]]:
    def program() -> list[tf.Tensor]:
      number = group.first_replica + replica
      all_reduce = ProgramAllReduce(group, number)
      arrays = [tf.fill([size], number + 1.0) for size in _SIZES[group.platform]]
      sums = [all_reduce([array])[0] for array in arrays]
      sums += all_reduce.reduce_asynchronously([*arrays, arrays[0]])
      return [function(total) for total in sums for function in (tf.reduce_min, tf.reduce_max)]

    with tf.device(devices[replica]):
      function = tf.function(program, jit_compile=True, autograph=False)
      return function.get_concrete_function()

  # Traced before any replica waits: Python may take long, for instance to delete old datasets.
  programs = [trace(replica) for replica in range(len(devices))]

  def reduce(replica: int) -> set[float]:
    with tf.device(devices[replica]), group.aborted_on_error():
      return {float(extreme) for extreme in programs[replica]()}

  replicas = [_start(functools.partial(reduce, replica)) for replica in range(len(devices))]
  if concurrent.futures.wait(replicas, _TIMEOUT_SECONDS).not_done:
    group.abort(f"a first all-reduce took longer than {_TIMEOUT_SECONDS:.0f} s")
    if concurrent.futures.wait(replicas, _ABORT_SECONDS).not_done:
      raise UserError(
        f"a first all-reduce took longer than {_TIMEOUT_SECONDS:.0f} s and could not be aborted."
      )
  try:
    found = set().union(*(replica.result() for replica in replicas))
  except tf.errors.OpError as error:
    raise UserError(f"a first all-reduce failed: {error.message.strip()}") from error
  if found != {expected}:
    group.abort("a first all-reduce returned wrong sums")
    raise UserError(
      f"a first all-reduce returned wrong sums: expected {expected}; received {sorted(found)}"
    )


def _start(function: Callable[[], Any]) -> concurrent.futures.Future:
  """Runs a function in a thread that does not keep the process from ending."""
  future: concurrent.futures.Future = concurrent.futures.Future()

  def run() -> None:
    try:
      future.set_result(function())
    except BaseException as error:
      future.set_exception(error)

  threading.Thread(target=run, name="replica_group_test", daemon=True).start()
  return future
