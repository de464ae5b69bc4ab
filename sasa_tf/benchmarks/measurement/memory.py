"""The peak of the memory that a step needs: its inputs, variables, results and all between.

TensorFlow's allocator keeps count, on a CPU as on a GPU, of what operations and compiled programs
take from it. It hands out blocks that are somewhat larger than asked for, and counts those; on a
CPU with oneDNN it leaves out what is smaller than 256 KiB, so the peak of a small shape is too low.
Without oneDNN, which TensorFlow leaves alone on processors that lack certain instructions, nothing
is counted on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Other threads may let go of a step's tensors only after its results have arrived.
_TIMES = 4


def _device() -> str:
  return "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"


def refusal() -> str | None:
  """Returns why there are no peaks here, or None if there are."""
  try:
    tf.config.experimental.reset_memory_stats(_device())
  except ValueError:
    return (
      "TensorFlow does not count the memory of this CPU without oneDNN; the environment variable "
      "TF_ENABLE_ONEDNN_OPTS=1 turns it on"
    )
  return None


def peak_bytes(compute: Callable[[], object], held_bytes: int) -> int:
  """Returns the peak of what `compute` needs on the first GPU, or on the CPU without one.

  Args:
    compute: does one step and waits for it.
    held_bytes: of its inputs and variables, which are allocated already.
  """
  compute()  # compiles, and tries out what libraries offer; both need memory of their own
  device = _device()
  idle, peak = [], []
  for _ in range(_TIMES):
    tf.config.experimental.reset_memory_stats(device)
    compute()
    info = tf.config.experimental.get_memory_info(device)
    peak.append(info["peak"])
    idle.append(info["current"])
  return max(peak) - min(idle) + held_bytes
