"""The machine: processor, memory, disks and GPUs."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator

from sasa_tf.diagnostics.findings import Finding

_GIB = 1 << 30
# A checkpoint of ResNet-50 with the optimizer's state takes about 0.2 GiB.
_MIN_FREE_DISK = 2 * _GIB


def check_machine() -> Iterator[Finding]:
  """Yields processor, memory and free disk space."""
  yield Finding("Python", f"{platform.python_version()} on {platform.platform()}")
  yield Finding("CPU", f"{_cpu_name()}, {len(os.sched_getaffinity(0))} cores")
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  yield Finding("memory", f"{memory / _GIB:.1f} GiB")
  places = {"working directory": pathlib.Path.cwd(), "temporary": tempfile.gettempdir()}
  for name, path in places.items():
    free = shutil.disk_usage(path).free
    state = "ok" if free >= _MIN_FREE_DISK else "problem"
    yield Finding(f"disk, {name}", f"{free / _GIB:.1f} GiB free in {path}", state)


def _cpu_name() -> str:
  try:
    match = re.search(r"^model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
  except OSError:
    match = None
  return match[1] if match else platform.machine()


def check_gpus() -> Iterator[Finding]:
  """Yields the GPUs that TensorFlow can use."""
  import tensorflow as tf

  gpus = tf.config.list_physical_devices("GPU")
  for gpu in gpus:
    details = tf.config.experimental.get_device_details(gpu)
    capability = ".".join(map(str, details.get("compute_capability", ("?",))))
    name = details.get("device_name", "unknown")
    yield Finding(gpu.name.partition(":")[2], f"{name}, compute capability {capability}")
  if gpus:
    return
  if not pathlib.Path("/dev/nvidiactl").exists():
    yield Finding("GPU", "none", "note")
  elif not tf.test.is_built_with_cuda():
    yield Finding("GPU", "this TensorFlow was built without CUDA", "problem")
  elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
    yield Finding("GPU", "hidden by CUDA_VISIBLE_DEVICES", "note")
  else:
    text = "TensorFlow cannot use it: pip install 'tensorflow[and-cuda]', and check the driver"
    yield Finding("GPU", text, "problem")
