"""The GPUs of this host, as nvidia-smi lists them. Imports no TensorFlow, which would use them."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Sequence

from sasa_tf.errors import UserError

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
# A driver that lost a GPU may block.
_TIMEOUT_SECONDS = 30

# Errors of a training that lost its GPU, or cannot use it.
GPU_LOST = re.compile(
  r"CUDA_ERROR_(?!OUT_OF_MEMORY)|TensorFlow sees \d+ GPUs|no CUDA-capable device|GPU is lost"
  r"|fallen off the bus|uncorrectable ECC|failed call to cuInit"
)


@dataclasses.dataclass(frozen=True)
class Gpu:
  """A GPU.

  Attributes:
    id: for CUDA_VISIBLE_DEVICES: the UUID, which stays the same when another GPU disappears.
    name: for messages.
  """

  id: str
  name: str


def find_gpus(selection: str = "auto") -> list[Gpu]:
  """Returns the GPUs to use.

  Args:
    selection: "auto" for those of CUDA_VISIBLE_DEVICES, by default all; "none"; or a
      comma-separated list of indices or UUIDs.

  Raises:
    UserError: a selected GPU does not exist.
  """
  if selection == "none":
    return []
  listed = _query()
  if selection == "auto":
    selection = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    if not listed:
      return []
    if selection == "all":
      return [gpu for gpu, _ in listed]
  wanted = [part.strip() for part in selection.split(",") if part.strip() not in ("", "-1")]
  by_name = {key: gpu for gpu, index in listed or [] for key in (index, gpu.id)}
  for name in wanted:
    # The parts of a partitioned GPU have identifiers of their own, which the query does not list.
    if listed is not None and name not in by_name and not name.startswith("MIG-"):
      known = ", ".join(f"{index} ({gpu.id})" for gpu, index in listed) or "none"
      raise UserError(f"GPU {name!r} does not exist. nvidia-smi lists: {known}.")
  return [by_name.get(name, Gpu(name, f"GPU {name}")) for name in wanted]


def missing_gpus(expected: Sequence[Gpu]) -> list[Gpu]:
  """Returns the GPUs that nvidia-smi no longer lists; [] if it does not answer."""
  listed = _query()
  if listed is None:
    return []
  ids = {gpu.id for gpu, _ in listed}
  return [gpu for gpu in expected if gpu.id.startswith("GPU-") and gpu.id not in ids]


def _query() -> list[tuple[Gpu, str]] | None:
  """Returns (GPU, index) of all GPUs that work; None if nvidia-smi is missing or blocks."""
  try:
    done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
  except (OSError, subprocess.TimeoutExpired):
    return None
  found = []
  for line in done.stdout.splitlines():
    parts = [part.strip() for part in line.split(",", 2)]
    if len(parts) == 3 and parts[1].startswith("GPU-"):
      found.append((Gpu(parts[1], f"GPU {parts[0]} ({parts[2]})"), parts[0]))
  return found
