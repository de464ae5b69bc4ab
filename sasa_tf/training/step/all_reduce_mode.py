"""Chooses where the replicas reduce their gradients."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.collectives.replica_group import (
  Ranks,
  ReplicaGroup,
  new_group_id,
  unsupported_reason,
)
from sasa_tf.collectives.self_test import create_tested_group
from sasa_tf.errors import UserError

# "in_program": within the compiled step. "between_programs": by TensorFlow, between two programs.
# "auto", the default: see `_reason_against`.
MODES = ("auto", "in_program", "between_programs")

# While one process writes a checkpoint, the others wait for it in the next step.
SEVERAL_PROCESSES_TIMEOUT_SECONDS = 600.0


class Processes(NamedTuple):
  """The processes of a training.

  Attributes:
    index: number of this process.
    gather: returns the texts of all processes, in their order. All must call it.
    find_lost: returns "" or which process is lost, some seconds after it.
    find_silent: returns "" or which process does not answer now.
  """

  index: int
  gather: Callable[[str], list[str]]
  find_lost: Callable[[], str]
  find_silent: Callable[[], str]


def replica_group(
  strategy: tf.distribute.Strategy,
  mode: str,
  enable_xla: bool,
  processes: Processes | None = None,
) -> ReplicaGroup | None:
  """Returns the group to reduce within the compiled step, or None to reduce between two programs.

  There is no group for a single replica. For several that XLA compiles, "auto" prints its choice
  with the reason.

  Args:
    strategy: strategy of the run.
    mode: one of `MODES`.
    enable_xla: whether XLA compiles the step.
    processes: the processes of the training, None if there is one.

  Raises:
    UserError: the mode is unknown, or "in_program" is not supported.
  """
  if mode not in MODES:
    raise UserError(f"--all_reduce: expected one of {', '.join(MODES)}; received {mode!r}.")
  if mode == "between_programs" or strategy.num_replicas_in_sync == 1:
    return None
  if mode == "auto" and not enable_xla:
    return None  # there are no programs
  devices = tuple(strategy.extended.worker_devices)
  reason = _reason_against(devices, processes) if mode == "auto" else None
  reason = reason or _unsupported_reason(strategy, devices, enable_xla, processes)
  group = None
  if mode == "in_program" and processes is not None:
    group, reason = _group_of_processes(devices, reason, processes)
  elif reason is None:
    try:
      group = _shared_group(devices)
    except UserError as error:
      reason = str(error).rstrip(".")
  if mode == "in_program" and reason:
    raise UserError(f"--all_reduce=in_program: {reason}. Set --all_reduce=between_programs.")
  if mode == "auto" and (processes is None or processes.index == 0):
    where = f"between two programs, because {reason}" if reason else "within the XLA program"
    print(f"--all_reduce=auto: the replicas reduce {where}", file=sys.stderr)
  return group


def _reason_against(devices: Sequence[str], processes: Processes | None) -> str | None:
  """Returns why "auto" does not select the all-reduce within the program where it is supported.

  It selects it for the GPUs of one process. On CPUs, the sums are computed by one replica. Between
  several processes, NCCL opens its own connections, which a firewall may block.
  """
  if processes is not None:
    return "the replicas belong to several processes"
  if any("GPU" not in device for device in devices):
    return "the replicas are not GPUs"
  return None


def _unsupported_reason(
  strategy: tf.distribute.Strategy,
  devices: tuple[str, ...],
  enable_xla: bool,
  processes: Processes | None,
) -> str | None:
  if not enable_xla:
    return "runtime.enable_xla=false"
  if len(devices) != strategy.num_replicas_in_sync:
    if processes is None:
      return "some replicas belong to other processes"
    if any("GPU" not in device for device in devices):
      return "the replicas of several processes are not GPUs"
  return unsupported_reason(devices)


@functools.cache
def _shared_group(devices: tuple[str, ...]) -> ReplicaGroup:
  """Returns the group of these devices. It exists, with NCCL's connections, until the process ends.

  Raises:
    UserError: it cannot be created, or does not work.
  """
  return create_tested_group(devices)


def _group_of_processes(
  devices: Sequence[str], reason: str | None, processes: Processes
) -> tuple[ReplicaGroup | None, str | None]:
  """Returns a group over all processes, or why it is impossible in one of them.

  Each process takes part in both exchanges, whatever fails in it, so that none waits for another.
  """
  group_id = ""
  if reason is None:
    try:
      group_id = new_group_id().hex()
    except UserError as error:
      reason = str(error).rstrip(".")
  own = [reason, len(devices), group_id]
  answers = [json.loads(text) for text in processes.gather(json.dumps(own))]
  if reasons := [reason for reason, *_ in answers if reason]:
    return None, reasons[0]
  counts = [count for _, count, _ in answers]
  ranks = Ranks(sum(counts[: processes.index]), sum(counts), bytes.fromhex(answers[0][2]))
  group, error = None, ""
  try:
    group = create_tested_group(devices, SEVERAL_PROCESSES_TIMEOUT_SECONDS, ranks=ranks)
  except UserError as problem:
    error = str(problem).rstrip(".")
  errors = [text for text in processes.gather(error) if text]
  return (None, errors[0]) if errors else (group, None)
