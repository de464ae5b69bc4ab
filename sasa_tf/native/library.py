"""The loaded library of compiled kernels, or the reason why they cannot be used."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from sasa_tf.native import cache, trust

BUILD_COMMAND = "python -m sasa_tf.native.build"

# The custom calls, each of which every platform has.
KERNELS = (
  "local_attention_forward",
  "local_attention_backward",
  "stem_attention_forward",
  "stem_attention_backward",
  "all_reduce",
  "all_reduce_start",
  "all_reduce_finish",
)

_XLA_PLATFORMS = {"CPU": "Host", "CUDA": "CUDA"}

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Library:
  """The compiled kernels that can be used in this process.

  Attributes:
    platforms: the platforms with usable kernels, of "CPU" and "CUDA".
    reason: why the kernels of the other platforms cannot be used; "" if there are none.
    path: path of the library, None if it is not loaded.
    architectures: the GPU architectures that it has code for.
  """

  platforms: tuple[str, ...]
  reason: str = ""
  path: pathlib.Path | None = None
  architectures: tuple[int, ...] = ()

  def c_functions(self) -> ctypes.CDLL:
    """Returns the C functions of the loaded library."""
    return ctypes.CDLL(str(self.path))


def read_record(directory: pathlib.Path) -> dict:
  """Returns the description that a build wrote; {} if there is no complete build."""
  path = directory / cache.RECORD
  if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be read forever
    return {}
  try:
    record = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError):
    return {}
  if not isinstance(record, dict):
    return {}
  types = {"platforms": list, "cuda": str | None, "sha256": str}
  valid = all(key in record and isinstance(record[key], kind) for key, kind in types.items())
  return record if valid and "CPU" in record["platforms"] else {}


def digest(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a library, as its record has it."""
  return hashlib.sha256(path.read_bytes()).hexdigest()


def unusable_reason(path: pathlib.Path) -> str:
  """Returns why a library that has been built cannot be loaded; "" if it can.

  Files that another user could have written are not read.
  """
  record_path = path.with_name(cache.RECORD)
  if reason := trust.untrusted_reason([path.parent.parent, path.parent, path, record_path]):
    return reason
  for file in (path, record_path):
    if not os.path.isfile(file):  # a pipe would be read forever
      return f"{file} is no file"
  record = read_record(path.parent)
  if not record:
    return f"{record_path} is not a complete record of a build"
  try:
    found = digest(path)
  except OSError as error:
    return str(error)
  if found != record["sha256"]:
    return f"it is not the library that {record_path} describes"
  return ""


@functools.cache
def load() -> Library:
  """Loads the library that belongs to this TensorFlow and these sources, if it has been built.

  This never builds it; `python -m sasa_tf.native.build` does.
  """
  path = cache.library_path()
  if not os.path.exists(path.parent):
    return Library(
      (),
      f"the compiled kernels have not been built for TensorFlow {tf.__version__}; run "
      f"`{BUILD_COMMAND}`",
    )
  record = read_record(path.parent)
  error = unusable_reason(path) or _register(path, record["platforms"])
  if error:
    reason = f"{path} cannot be used ({error}); run `{BUILD_COMMAND} --force` to rebuild it"
    _logger.warning("the compiled kernels are not loaded: %s", reason)
    return Library((), reason)
  if "CUDA" not in record["platforms"]:
    return Library(("CPU",), "the compiled kernels were built for CPUs only", path)
  problem = _gpu_problem(record["cuda"] or "")
  if problem:
    return Library(("CPU",), problem, path)
  compilers = record.get("compilers")
  architectures = compilers.get("architectures", ()) if isinstance(compilers, dict) else ()
  return Library(("CPU", "CUDA"), "", path, tuple(architectures))


def _register(path: pathlib.Path, platforms: Sequence[str]) -> str:
  """Registers the kernels of the platforms with XLA; returns "" or an error message."""
  try:
    loaded = ctypes.CDLL(str(path))
    register, handlers = loaded.sasa_tf_register, loaded.sasa_tf_handlers
  except (OSError, AttributeError) as error:  # missing, truncated, or of another ABI
    return str(error)
  register.restype = handlers.restype = ctypes.c_char_p
  if error := register().decode(errors="replace"):
    return error
  names = {_XLA_PLATFORMS[p]: p for p in platforms if p in _XLA_PLATFORMS}
  expected = {f"{name} sasa_tf_{kernel}" for name in names for kernel in KERNELS}
  missing = sorted(expected - set(handlers().decode(errors="replace").split("\n")))
  return f"it is incomplete, it lacks {', '.join(missing)}" if missing else ""


def _gpu_problem(built_for: str) -> str:
  """Returns why this host's GPUs cannot run code of that CUDA version; "" if they can.

  Without GPUs there is no problem: the kernels can still be part of an exported program.
  """
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return ""
  driver = _driver_version()
  major = built_for.partition(".")[0]
  if not major.isdecimal():
    return "the CUDA version of the compiled kernels is unknown"
  if driver < int(major):
    return (
      f"the NVIDIA driver supports CUDA {driver}, but the compiled kernels were built with CUDA "
      f"{built_for}; update the driver, or build with an older CUDA toolkit (CUDA_HOME=... "
      f"{BUILD_COMMAND} --force)"
    )
  for gpu in gpus:
    details = tf.config.experimental.get_device_details(gpu)
    capability = details.get("compute_capability", (0, 0))
    if capability < (8, 0):
      return (
        f"the compiled kernels need GPUs of compute capability 8.0 or more; {gpu.name} "
        f"({details.get('device_name', 'unknown')}) has {capability[0]}.{capability[1]}"
      )
  return ""


@functools.cache
def gpu_capability() -> tuple[int, int]:
  """Returns the lowest compute capability of this host's GPUs; (0, 0) without GPUs."""
  details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
  return min((d.get("compute_capability", (0, 0)) for d in details), default=(0, 0))


def _driver_version() -> int:
  """Returns the major CUDA version that the NVIDIA driver supports; 0 without a driver."""
  version = ctypes.c_int()
  try:
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
  except OSError:
    return 0
  return version.value // 1000
