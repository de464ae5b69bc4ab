"""The peak memory of a step: its inputs, variables, results and temporaries.

The number is that of TensorFlow's allocator, which counts the allocations of operations and of
compiled programs on CPUs and GPUs. It counts blocks, which are somewhat larger than the requested
sizes. On a CPU with oneDNN it does not count allocations below 256 KiB, so the peak of a small
shape is too low. On a CPU without oneDNN, which TensorFlow disables on processors that lack certain
instructions, it counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Other threads may free the tensors of a step only after its results are available.
_REPETITIONS = 4


def _device() -> str:
  return "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"


def unsupported_reason() -> str | None:
  """Returns why peak memory cannot be measured here, or None if it can."""
  try:
    tf.config.experimental.reset_memory_stats(_device())
  except ValueError:
    return (
      "TensorFlow does not count the memory of this CPU without oneDNN; the environment variable "
      "TF_ENABLE_ONEDNN_OPTS=1 turns it on"
    )
  return None


def peak_bytes(compute: Callable[[], object], resident_bytes: int) -> int:
  """Returns the peak memory of a step on the first GPU, or on the CPU without one.

  Args:
    compute: executes one step and waits for it.
    resident_bytes: size of its inputs and variables, which are already allocated.
  """
  compute()  # compiles and autotunes, which need memory of their own
  device = _device()
  idle, peak = [], []
  for _ in range(_REPETITIONS):
    tf.config.experimental.reset_memory_stats(device)
    compute()
    info = tf.config.experimental.get_memory_info(device)
    peak.append(info["peak"])
    idle.append(info["current"])
  return max(peak) - min(idle) + resident_bytes
