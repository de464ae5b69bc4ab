"""The built library, loaded once in a process, or the reason why there is none."""

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
  """What of the compiled kernels can be used.

  Attributes:
    platforms: of "CPU" and "CUDA".
    reason: why a platform is missing; "" where none is.
  """

  platforms: tuple[str, ...]
  reason: str = ""


def read_record(directory: pathlib.Path) -> dict:
  """What the build wrote about itself; {} if there is no complete build."""
  try:
    return json.loads((directory / cache.RECORD).read_text())
  except (OSError, ValueError):
    return {}


@functools.cache
def load() -> Library:
  """Loads the library that belongs to this TensorFlow and these sources, if it has been built.

  It is never built here: `python -m sasa_tf.native.build` does that.
  """
  directory = cache.library_directory()
  record = read_record(directory)
  if not record:
    return Library(
      (),
      f"the compiled kernels have not been built for TensorFlow {tf.__version__}; "
      f"`{BUILD_COMMAND}` does it",
    )
  error = _register(directory / cache.LIBRARY)
  if error:
    return Library(
      (),
      f"{directory / cache.LIBRARY} cannot be used ({error}); `{BUILD_COMMAND} --force` makes "
      "it anew",
    )
  if "CUDA" not in record["platforms"]:
    return Library(("CPU",), "the compiled kernels were built for processors only")
  problem = _gpu_problem(record["cuda"])
  return Library(("CPU",), problem) if problem else Library(("CPU", "CUDA"))


def _register(path: pathlib.Path) -> str:
  """Makes the kernels known to XLA; returns "" or what is wrong."""
  try:
    register = ctypes.CDLL(str(path)).sasa_tf_register
  except (OSError, AttributeError) as error:  # missing, cut off, or of another ABI
    return str(error)
  register.restype = ctypes.c_char_p
  return register().decode()


def _gpu_problem(built_for: str) -> str:
  """Why this host's GPUs cannot run code of that CUDA version; "" if they can, or are none."""
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return ""
  driver = _driver_version()
  if driver < int(built_for.partition(".")[0]):
    return (
      f"the NVIDIA driver is made for CUDA {driver}, the compiled kernels were built with CUDA "
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
  """The major version of CUDA that the NVIDIA driver serves; 0 where there is no driver."""
  version = ctypes.c_int()
  try:
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
  except OSError:
    return 0
  return version.value // 1000
