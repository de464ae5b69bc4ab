"""Machine, devices and versions, which every result is stored with."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import re
from typing import Any, TypedDict

import tensorflow as tf

import sasa_tf
from sasa_tf.outputs import provenance
from sasa_tf.outputs.json_types import conforms

_PACKAGES = ("tensorflow", "keras", "tf_keras", "numpy")
# Environment variables that affect the results, by prefix.
_VARIABLES = re.compile(
  r"(TF_|XLA_|CUDA_|NVIDIA_TF32|OMP_|MKL_|ONEDNN_|DNNL_|SASA_TF_|KERAS_BACKEND|LD_PRELOAD)"
)
_IRRELEVANT = ("TF_CLI_CONFIG_FILE", "TF_CPP_MIN_LOG_LEVEL", "CUDA_HOME", "CUDA_PATH")


class Environment(TypedDict):
  """What `describe_environment` returns and reports show."""

  machine: str
  system: str
  cores: int
  memory_bytes: int | None
  load_average: float
  device: str
  driver: str | None
  cuda: str | None
  cudnn: str | None
  threads: int | str
  python: str
  sasa_tf: str
  commit: str | None
  packages: dict[str, str | None]
  variables: dict[str, str]
  timestamp: str


def check_types(result: Any) -> None:
  """Checks the values of a result that was read from a file.

  Args:
    result: dataclass with `environment`, which may be empty.

  Raises:
    ValueError: a value is not of the type of its field.
  """
  known = result.environment == {} or conforms(result.environment, Environment)
  if not known or not conforms(result, type(result)):
    raise ValueError("a value has another type")


def _first(pattern: str, file: str) -> str | None:
  try:
    found = re.search(pattern, pathlib.Path(file).read_text())
  except OSError:
    return None
  return found and found[1].strip()


def gpu_name() -> str | None:
  """Returns the name of the first GPU, or None without one."""
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return None
  return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def set_threads(count: int) -> None:
  """Sets the threads of an operation on the CPU, 0 for all cores.

  Must be called before TensorFlow executes its first operation.
  """
  tf.config.threading.set_intra_op_parallelism_threads(count)


def describe_environment() -> dict[str, Any]:
  """Returns machine, devices and versions as JSON values."""
  build = tf.sysconfig.get_build_info()
  memory = _first(r"MemTotal:\s+(\d+) kB", "/proc/meminfo")
  return {
    "machine": _first(r"model name\s*: (.+)", "/proc/cpuinfo") or platform.processor(),
    "architecture": platform.machine(),
    "system": f"{platform.system()} {platform.release()}",
    "cores": len(os.sched_getaffinity(0)),
    "memory_bytes": memory and 1024 * int(memory),
    "load_average": round(os.getloadavg()[0], 2),
    "device": gpu_name() or "CPU",
    "driver": _first(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", "/proc/driver/nvidia/version"),
    "cuda": build.get("cuda_version") if gpu_name() else None,
    "cudnn": build.get("cudnn_version") if gpu_name() else None,
    "threads": tf.config.threading.get_intra_op_parallelism_threads() or "all",
    "python": platform.python_version(),
    "sasa_tf": sasa_tf.__version__,
    "commit": provenance.commit(),
    "packages": provenance.package_versions(_PACKAGES),
    "variables": {
      name: value
      for name, value in sorted(os.environ.items())
      if _VARIABLES.match(name) and name not in _IRRELEVANT
    },
    "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
  }
