"""The replicas that reduce with each other, and their state."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.collectives.nccl_paths import nccl_paths
from sasa_tf.errors import UserError
from sasa_tf.native import library

# The first step of one replica waits while that of another is compiled.
FIRST_STEP_TIMEOUT_SECONDS = 600.0
TIMEOUT_SECONDS = 50.0

_CHECK_INTERVAL_SECONDS = 0.5

_numbers = itertools.count()
_logger = logging.getLogger(__name__)


class Ranks(NamedTuple):
  """The replicas of this process among those of all processes.

  Attributes:
    first: number of the first one.
    total: number of the replicas of all processes.
    group_id: what `new_group_id` returned in one of the processes; None if there is only one.
  """

  first: int
  total: int
  group_id: bytes | None


class ReplicaGroup:
  """The replicas of this process that all-reduce within their XLA programs.

  All replicas must reduce equally often, and arrays of equal shapes in the same order. If they do
  not, if NCCL reports an error or if a replica does not arrive in time, the group fails: programs
  that wait are ended, and every later all-reduce raises `tf.errors.InternalError` with the reason.

  Attributes:
    number: identifies the group in this process.
    platform: XLA's name of the platform of all devices, "CPU" or "CUDA".
    size: number of replicas, of all processes.
    first_replica: number of this process's first one.
  """

  def __init__(
    self,
    devices: Sequence[str],
    timeout_seconds: float = TIMEOUT_SECONDS,
    first_timeout_seconds: float = FIRST_STEP_TIMEOUT_SECONDS,
    ranks: Ranks | None = None,
  ):
    """Creates the group. On GPUs, this opens NCCL's connections between them.

    Args:
      devices: the device of each replica of this process, such as
        "/job:localhost/replica:0/task:0/device:GPU:0".
      timeout_seconds: the longest time for which a replica waits for the others.
      first_timeout_seconds: the same for the first all-reduce of each program.
      ranks: the replicas of all processes; None for a single process. All must create the group.

    Raises:
      UserError: the devices or this installation do not support it, see `unsupported_reason`.
    """
    if reason := unsupported_reason(devices):
      raise UserError(f"the replicas cannot reduce within the XLA program: {reason}.")
    self.number = next(_numbers)
    gpus = _cuda_numbers(devices)
    self.platform = "CUDA" if gpus else "CPU"
    self._functions = _functions()
    ranks = ranks or Ranks(0, len(devices), None)
    self.first_replica, self.size = ranks.first, ranks.total
    error = self._functions.sasa_tf_group_create(
      ctypes.c_int64(self.number),
      ctypes.c_int32(len(devices)),
      (ctypes.c_int32 * len(gpus))(*gpus) if gpus else None,
      ctypes.c_int32(ranks.first),
      ctypes.c_int32(ranks.total),
      ranks.group_id,
      _joined_nccl_paths(),
      ctypes.c_double(first_timeout_seconds),
      ctypes.c_double(timeout_seconds),
    )
    if error:
      raise _unsupported(error)
    self._num_programs = [0] * len(devices)
    self._closed = threading.Event()
    threading.Thread(target=self._monitor, name="replica_group_monitor", daemon=True).start()

  def next_program(self, replica: int) -> int:
    """Returns the number of the next program that is traced for a replica.

    It is the same on all replicas, if the same programs are traced for them in the same order.
    """
    index = replica - self.first_replica
    self._num_programs[index] += 1
    return self._num_programs[index] - 1

  def failure(self) -> str:
    """Returns why the group failed, or ""."""
    return self._functions.sasa_tf_group_check(ctypes.c_int64(self.number)).decode(errors="replace")

  def abort(self, reason: str) -> None:
    """Fails the group, so that no replica and no device waits for the others."""
    self._functions.sasa_tf_group_abort(ctypes.c_int64(self.number), reason.encode())

  def close(self) -> None:
    """Frees the connections. No program of the group may run or start any more."""
    if not self._closed.is_set():
      self._closed.set()
      self._functions.sasa_tf_group_close(ctypes.c_int64(self.number))

  @contextlib.contextmanager
  def aborted_on_error(self) -> Iterator[None]:
    """Aborts the group if the body raises, because a replica may wait for one that failed."""
    try:
      yield
    except BaseException as error:
      self.abort(f"the step failed ({type(error).__name__})")
      raise

  def _monitor(self) -> None:
    """Ends waiting after the time limit, and logs why."""
    while not self._closed.wait(_CHECK_INTERVAL_SECONDS):
      if failure := self.failure():
        _logger.error("the all-reduce of %d replicas failed: %s", self.size, failure)
        return


def new_group_id() -> bytes:
  """Returns an identifier of a new group on GPUs, which all of its processes must know.

  Raises:
    UserError: there is no NCCL.
  """
  group_id = ctypes.create_string_buffer(128)
  if error := _functions().sasa_tf_group_id(_joined_nccl_paths(), group_id):
    raise _unsupported(error)
  return group_id.raw


def _functions() -> ctypes.CDLL:
  functions = library.load().c_functions()
  for name in ("id", "create", "check"):
    getattr(functions, f"sasa_tf_group_{name}").restype = ctypes.c_char_p
  return functions


def _joined_nccl_paths() -> bytes:
  return "\n".join(nccl_paths()).encode()


def _unsupported(error: bytes) -> UserError:
  return UserError(
    f"the replicas cannot reduce within the XLA program: {error.decode(errors='replace')}."
  )


def unsupported_reason(devices: Sequence[str]) -> str | None:
  """Returns why replicas on these devices cannot reduce within the XLA program, or None.

  Args:
    devices: the device of each replica.
  """
  specs = [tf.DeviceSpec.from_string(device) for device in devices]
  if len({(spec.job, spec.replica, spec.task) for spec in specs}) > 1:
    return "they run in several processes"
  kinds = {spec.device_type for spec in specs}
  if kinds not in ({"GPU"}, {"CPU"}):
    return f"they run on {' and '.join(sorted(map(str, kinds)))}; all must be GPUs, or all CPUs"
  if not library.load().platforms:
    return library.load().reason
  logical, visible = _logical_gpus(specs[0]), tf.config.get_visible_devices("GPU")
  if kinds == {"GPU"} and len(logical) != len(visible):
    return "a GPU is split into several logical devices"
  if any(spec.device_index >= len(logical) for spec in specs if spec.device_type == "GPU"):
    return f"TensorFlow sees {len(logical)} GPUs"
  return None


def _logical_gpus(own: tf.DeviceSpec) -> list[str]:
  """Returns the GPUs of this process.

  With several processes, TensorFlow lists those of all. With one, it does not name the process.
  """
  names = [device.name for device in tf.config.list_logical_devices("GPU")]
  specs = {name: tf.DeviceSpec.from_string(name) for name in names}
  own_process = ((None, None), (own.job, own.task))
  return [name for name in names if (specs[name].job, specs[name].task) in own_process]


def _cuda_numbers(devices: Sequence[str]) -> list[int]:
  """Returns CUDA's numbers of the GPUs, which differ from TensorFlow's if some are not visible."""
  specs = [tf.DeviceSpec.from_string(device) for device in devices]
  if specs[0].device_type != "GPU":
    return []
  numbers = [int(gpu.name.rpartition(":")[2]) for gpu in tf.config.get_visible_devices("GPU")]
  return [numbers[spec.device_index] for spec in specs]
