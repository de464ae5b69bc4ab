"""The memory that this process uses."""

from __future__ import annotations

import resource
from typing import Any

import tensorflow as tf


def peak_memory() -> dict[str, Any]:
  """Returns the peak of the first GPU's memory, or of this process on a host without GPUs.

  Returns:
    {"kind": "device" or "host_rss", "bytes": number}.
  """
  if tf.config.list_logical_devices("GPU"):
    return {"kind": "device", "bytes": _device_peak()}
  return {"kind": "host_rss", "bytes": _host_peak()}


def memory_text() -> str:
  """Returns the peaks of this process and of its first GPU: "memory 2.1 GiB, GPU 10.8 GiB"."""
  text = f"memory {_gibibytes(_host_peak())}"
  if tf.config.list_logical_devices("GPU"):
    text += f", GPU {_gibibytes(_device_peak())}"
  return text


def _host_peak() -> int:
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device_peak() -> int:
  return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _gibibytes(count: int) -> str:
  return f"{count / 2**30:.1f} GiB"
