"""The loaded library of compiled kernels, or the reason why they cannot be used."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import json
import pathlib

import tensorflow as tf

from sasa_tf.native import cache

BUILD_COMMAND = "python -m sasa_tf.native.build"


@dataclasses.dataclass(frozen=True)
class Library:
  """The compiled kernels that can be used in this process.

  Attributes:
    platforms: the platforms with usable kernels, of "CPU" and "CUDA".
    reason: why the kernels of the other platforms cannot be used; "" if there are none.
  """

  platforms: tuple[str, ...]
  reason: str = ""


def read_record(directory: pathlib.Path) -> dict:
  """Returns the description that a build wrote; {} if there is no complete build."""
  try:
    return json.loads((directory / cache.RECORD).read_text())
  except (OSError, ValueError):
    return {}


@functools.cache
def load() -> Library:
  """Loads the library that belongs to this TensorFlow and these sources, if it has been built.

  This never builds it; `python -m sasa_tf.native.build` does.
  """
  path = cache.library_path()
  record = read_record(path.parent)
  if not record:
    return Library(
      (),
      f"the compiled kernels have not been built for TensorFlow {tf.__version__}; run "
      f"`{BUILD_COMMAND}`",
    )
  error = _register(path)
  if error:
    return Library(
      (), f"{path} cannot be used ({error}); run `{BUILD_COMMAND} --force` to rebuild it"
    )
  if "CUDA" not in record["platforms"]:
    return Library(("CPU",), "the compiled kernels were built for CPUs only")
  problem = _gpu_problem(record["cuda"])
  return Library(("CPU",), problem) if problem else Library(("CPU", "CUDA"))


def _register(path: pathlib.Path) -> str:
  """Registers the kernels with XLA; returns "" or an error message."""
  try:
    register = ctypes.CDLL(str(path)).sasa_tf_register
  except (OSError, AttributeError) as error:  # missing, truncated, or of another ABI
    return str(error)
  register.restype = ctypes.c_char_p
  return register().decode()


def _gpu_problem(built_for: str) -> str:
  """Returns why this host's GPUs cannot run code of that CUDA version; "" if they can.

  Without GPUs there is no problem: the kernels can still be part of an exported program.
  """
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return ""
  driver = _driver_version()
  if driver < int(built_for.partition(".")[0]):
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


def _driver_version() -> int:
  """Returns the major CUDA version that the NVIDIA driver supports; 0 without a driver."""
  version = ctypes.c_int()
  try:
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
  except OSError:
    return 0
  return version.value // 1000
