"""The StableHLO text of a call of a portable kernel, which XLA itself compiles or loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sasa_tf.native.portable import KERNEL_NAME
from sasa_tf.ops.compiled.stablehlo import Array, module
from sasa_tf.ops.portable.kernel import PortableKernel

KernelFormat = Literal["ptx", "triton"]


def custom_call_module(kernel: PortableKernel, kernel_format: KernelFormat) -> str:
  """Returns a module for CUDA that takes packed QKV and both tables and returns the output.

  Args:
    kernel: the kernel; the batch size is free.
    kernel_format: "ptx" for TensorFlow 2.21 and later, "triton" for 2.20 and later.

  Raises:
    UserError: nvcc is not installed, or failed.
  """
  height, width = kernel.image
  per_pixel = (kernel.heads, kernel.head_dim)
  qkv = Array(("%batch", height, width, 3 if kernel.has_key else 2, *per_pixel), kernel.element)
  pooled = (size // kernel.pool_size for size in kernel.image)
  output = Array(("%batch", *pooled, *per_pixel), kernel.element)
  tables = []
  if kernel.has_relative:
    tables = [Array((size, kernel.head_dim // 2)) for size in kernel.geometry.kernel_size]
  target, attributes = (_ptx_call if kernel_format == "ptx" else _triton_call)(kernel)
  return module(
    "portable_attention",
    [qkv, *tables],
    [output],
    attributes,
    ["CUDA"],
    target=target,
    size_operands=["%batch"],
  )


def _ptx_call(kernel: PortableKernel) -> tuple[str, Mapping[str, str]]:
  grid = {"grid_x": f"{kernel.grid}", "grid_y": "1", "grid_z": "1"}
  block = {"block_x": f"{kernel.threads}", "block_y": "1", "block_z": "1"}
  return "__gpu$xla.gpu.ptx", {
    "name": f'"{KERNEL_NAME}"',
    "kernel_type": '"ptx"',
    "kernel_data": _quoted(kernel.ptx),
    **grid,
    **block,
    "shared_mem_bytes": "0",
    "output_indices": f"[{len(kernel.operand_elements) - 1}]",
  }


def _triton_call(kernel: PortableKernel) -> tuple[str, Mapping[str, str]]:
  return "__gpu$xla.gpu.triton", {
    "name": f'"{KERNEL_NAME}"',
    "ir": _quoted(kernel.triton_ir),
    "grid_x": f"{kernel.grid} : i32",
    "grid_y": "1 : i32",
    "grid_z": "1 : i32",
    "num_stages": "1 : i32",
    "num_warps": f"{kernel.warps} : i32",
    "debug": "false",
  }


def _quoted(text: str) -> str:
  """Returns the text as a string attribute of MLIR."""
  return '"' + text.replace("\\", "\\5C").replace('"', "\\22").replace("\n", "\\0A") + '"'
