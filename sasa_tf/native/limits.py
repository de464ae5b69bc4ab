"""What the compiled kernels support: the constants and predicates of `limits.h`.

The constants are parsed from the C++ headers, so they need no built library.
"""

from __future__ import annotations

import functools
import math
import pathlib
import re
from collections.abc import Sequence

_HEADERS = ("limits.h", "local_attention.h", "projection_kernels.h", "stem_kernels.h")


@functools.cache
def constants() -> dict[str, float]:
  """Returns {name: value} of the headers' numeric constants."""
  pattern = re.compile(r"^constexpr (?:int64_t|double) (k\w+) = ([\d.]+);", re.MULTILINE)
  folder = pathlib.Path(__file__).parent
  found = [match for name in _HEADERS for match in pattern.findall((folder / name).read_text())]
  return {name: float(value) if "." in value else int(value) for name, value in found}


def local_attention_unsupported(
  platform: str,
  kernel_size: tuple[int, int],
  shape: Sequence[int | None],
  *,
  qkv_parts: int = 1,
) -> str | None:
  """Returns why a platform's kernels do not support local attention, or None if they do.

  Args:
    platform: "CPU" or "CUDA".
    kernel_size: rows and columns of the window.
    shape: [B, H, W, N, D] of the query; sizes that are unknown pass.
    qkv_parts: the arrays that are packed in one with the query, itself included.
  """
  limit = constants()
  batch, height, width, heads, depth = shape
  if max(kernel_size) > limit["kMaxKernelSize"]:
    return (
      f"the compiled kernels support windows of up to {limit['kMaxKernelSize']} rows and columns, "
      f"not {kernel_size}"
    )
  if depth > limit["kMaxHeadDim"]:
    return f"the compiled kernels support heads of width up to {limit['kMaxHeadDim']}, not {depth}"
  tables = limit["kTableWorkers"] * sum(kernel_size) * (depth // 2)
  if _product(batch, height, width, heads) + tables > limit["kMaxInt32"]:
    return "the compiled kernels support fewer than 2**31 pixels times heads"
  if platform == "CPU":
    return None
  if depth % limit["kCudaHeadDimMultiple"]:
    return (
      "the compiled kernels for GPUs support heads of a width divisible by "
      f"{limit['kCudaHeadDimMultiple']}, not {depth}"
    )
  if kernel_size[1] < limit["kMinCudaKernelColumns"]:
    return (
      f"the compiled kernels for GPUs support windows of {limit['kMinCudaKernelColumns']} columns "
      f"or more, not {kernel_size}"
    )
  if _product(height, width, qkv_parts, heads, depth) > limit["kMaxInt32"]:
    return "the compiled kernels for GPUs support images of fewer than 2**31 elements"
  return None


def uses_tensor_cores(
  dtype: str,
  kernel_size: tuple[int, int],
  shape: Sequence[int | None],
  scale: float,
  *,
  qkv_parts: int = 1,
) -> bool:
  """Whether the CUDA kernels of local attention use the tensor cores.

  Args:
    dtype: name of the dtype of query, key and value.
    kernel_size: see `local_attention_unsupported`.
    shape: see `local_attention_unsupported`.
    scale: multiplies the query.
    qkv_parts: see `local_attention_unsupported`.
  """
  limit = constants()
  *_, heads, depth = shape
  rows, columns = kernel_size
  return (
    (dtype == "bfloat16" or (dtype == "float16" and rows == limit["kFloat16TensorCoreKernelSize"]))
    and rows == columns
    and rows % 2 == 1
    and limit["kMinTensorCoreKernelSize"] <= rows <= limit["kMaxKernelSize"]
    and limit["kMinTensorCoreHeadDim"] <= depth <= limit["kMaxTensorCoreHeadDim"]
    and depth & (depth - 1) == 0
    and heads <= limit["kMaxTensorCoreHeads"]
    and _product(*shape, qkv_parts) <= limit["kMaxTensorCoreElements"]
    and scale >= limit["kMinTensorCoreScale"]
  )


def supports_projections(
  dtype: str,
  kernel_size: tuple[int, int],
  shape: Sequence[int | None],
  channels: int,
  scale: float,
) -> bool:
  """Whether the CUDA kernel with the projections inside supports local self-attention.

  Args:
    dtype: name of the dtype of inputs and kernel.
    kernel_size: see `local_attention_unsupported`.
    shape: see `local_attention_unsupported`, but W must be known.
    channels: C of the inputs.
    scale: multiplies the query.
  """
  limit = constants()
  _, height, width, _, depth = shape
  return (
    dtype == "bfloat16"
    and kernel_size[0] <= limit["kMaxProjectedKernelSize"]
    and depth == limit["kProjectedHeadDim"]
    and channels == limit["kProjectedChannels"]
    and width is not None
    and width <= limit["kProjectedMaxWidth"]
    and _product(height, width, channels) <= limit["kMaxInt32"]
    and uses_tensor_cores(dtype, kernel_size, shape, scale, qkv_parts=3)
  )


def supports_projected_backward(
  dtype: str,
  kernel_size: tuple[int, int],
  shape: Sequence[int | None],
  channels: int,
  scale: float,
) -> bool:
  """Whether the CUDA backward kernel with the projections inside supports local self-attention.

  Args:
    dtype: see `supports_projections`, as the others.
    kernel_size: rows and columns of the window.
    shape: [B, H, W, N, D] of the query.
    channels: C of the inputs.
    scale: multiplies the query.
  """
  width = shape[2]
  return (
    supports_projections(dtype, kernel_size, shape, channels, scale)
    and kernel_size[0] % 4 == 3
    and width is not None
    and width <= constants()["kProjectedBackwardMaxWidth"]
  )


def projected_backward_is_faster(kernel_size: tuple[int, int], shape: Sequence[int | None]) -> bool:
  """Whether that kernel is faster than others on a Hopper GPU; not if a size is unknown.

  Args:
    kernel_size: rows and columns of the window.
    shape: [B, H, W, N, D] of the query.
  """
  limit = constants()
  batch, height, width, heads, _ = shape
  if batch is None or height is None or width is None or heads is None:
    return False
  regions = batch * ((heads + 1) // 2)
  workers = limit["kHopperMultiprocessors"]
  least = "kMinOnePassOccupancy" if kernel_size[0] == 7 else "kMinSmallOnePassOccupancy"
  return (
    min(height, width) >= limit["kMinOnePassSide"]
    and regions >= limit[least] * -(-regions // workers) * workers
  )


def supports_projection_backward(
  dtype: str, shape: Sequence[int | None], channels: int, outputs: int
) -> bool:
  """Whether the CUDA kernels of the projections' backward pass support them.

  Args:
    dtype: name of the dtype of inputs and kernel.
    shape: [B, H, W] of the inputs; sizes that are unknown pass.
    channels: C of the inputs.
    outputs: 3 * N * D.
  """
  limit = constants()
  return (
    dtype == "bfloat16"
    and limit["kProjectionSlice"] <= channels <= limit["kMaxProjectionChannels"]
    and channels % limit["kProjectionSlice"] == 0
    and outputs == 3 * channels
    and _product(*shape) <= limit["kMaxInt32"]
  )


def stem_attention_unsupported(
  platform: str,
  block: tuple[int, int],
  shape: Sequence[int | None],
  depth: int,
  heads: int | None = None,
) -> str | None:
  """Returns why a platform's kernels do not support stem attention, or None if they do.

  Args:
    platform: "CPU" or "CUDA".
    block: rows and columns of a block.
    shape: [B, H, W, C] of the pixels; sizes that are unknown pass.
    depth: D.
    heads: N, if known.
  """
  limit = constants()
  batch, height, width, channels = shape
  for name, value, most in (
    ("input channels", channels, limit["kMaxStemChannels"]),
    ("pixels in a block", math.prod(block), limit["kMaxStemPositions"]),
    ("channels in a head", depth, limit["kMaxHeadDim"]),
  ):
    if value > most:
      return f"the compiled kernels support up to {most} {name}, not {value}"
  if platform == "CPU":
    return None
  if _product(height, width, heads, depth) > limit["kMaxInt32"]:
    return "the compiled kernels for GPUs support images of fewer than 2**31 elements"
  if _product(batch, height, width) > limit["kMaxInt32"]:
    return "the compiled kernels for GPUs support fewer than 2**31 pixels"
  return None


def _product(*sizes: int | None) -> int:
  """Multiplies sizes; 1 if any is unknown, as it then cannot be compared with a limit."""
  return 1 if None in sizes else math.prod(sizes)
