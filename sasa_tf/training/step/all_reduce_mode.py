"""Chooses where the replicas reduce their gradients."""

from __future__ import annotations

import functools
import sys

import tensorflow as tf

from sasa_tf.collectives.replica_group import ReplicaGroup, unsupported_reason
from sasa_tf.collectives.self_test import check_sums
from sasa_tf.errors import UserError

# "in_program": within the compiled step. "between_programs": by TensorFlow, between two programs.
# "auto": the former where it is supported and the devices are GPUs.
MODES = ("auto", "in_program", "between_programs")


def replica_group(
  strategy: tf.distribute.Strategy, mode: str, enable_xla: bool
) -> ReplicaGroup | None:
  """Returns the group to reduce within the compiled step, or None to reduce between two programs.

  With a single replica, there is no group. For several, "auto" prints its choice.

  Args:
    strategy: strategy of the run.
    mode: one of `MODES`.
    enable_xla: whether XLA compiles the step.

  Raises:
    UserError: the mode is unknown, or "in_program" is not supported.
  """
  if mode not in MODES:
    raise UserError(f"--all_reduce: expected one of {', '.join(MODES)}; received {mode!r}.")
  if mode == "between_programs" or strategy.num_replicas_in_sync == 1:
    return None
  devices = tuple(strategy.extended.worker_devices)
  group, reason = None, _unsupported_reason(strategy, devices, mode, enable_xla)
  if reason is None:
    try:
      group = _shared_group(devices)
    except UserError as error:
      reason = str(error).rstrip(".")
  if mode == "auto":
    where = f"between two programs, because {reason}" if reason else "within the XLA program"
    print(f"--all_reduce=auto: the replicas reduce {where}", file=sys.stderr)
  elif reason:
    raise UserError(f"--all_reduce=in_program: {reason}. Set --all_reduce=between_programs.")
  return group


def _unsupported_reason(
  strategy: tf.distribute.Strategy, devices: tuple[str, ...], mode: str, enable_xla: bool
) -> str | None:
  if not enable_xla:
    return "runtime.enable_xla=false"
  if len(devices) != strategy.num_replicas_in_sync:
    return "some replicas belong to other processes"
  if mode == "auto" and any("GPU" not in device for device in devices):
    return "the replicas are not GPUs"
  return unsupported_reason(devices)


@functools.cache
def _shared_group(devices: tuple[str, ...]) -> ReplicaGroup:
  """Returns the group of these devices. It exists, with NCCL's connections, until the process ends.

  Raises:
    UserError: it cannot be created, or does not work.
  """
  group = ReplicaGroup(devices)
  check_sums(group, devices)
  return group
