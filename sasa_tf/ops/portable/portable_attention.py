"""Local attention by kernels that travel inside of an exported model as text."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from sasa_tf.native import limits
from sasa_tf.ops.average_pooling import average_pool_heads
from sasa_tf.ops.compiled.xla_custom_call import call_kernel, unsupported_dtype
from sasa_tf.ops.portable.custom_call import KernelFormat, custom_call_module
from sasa_tf.ops.portable.kernel import PortableKernel
from sasa_tf.ops.window import WindowGeometry

# The same layer occurs several times in a model.
_cached_module = functools.cache(custom_call_module)


def unsupported_reason(
  query: tf.Tensor | tf.TensorSpec, geometry: WindowGeometry, window_mask: bool, qkv_parts: int = 1
) -> str | None:
  """Returns why the kernels do not support these arguments, or None if they do.

  Args:
    query: [B, H, W, N, D].
    geometry: the window.
    window_mask: see `local_attention_2d`.
    qkv_parts: the arrays that are packed in one tensor with the query, itself included.
  """
  if not window_mask:
    return "window_mask=False needs an implementation that works in blocks of queries"
  unsupported = unsupported_dtype(query.dtype)
  if unsupported:
    return unsupported
  if None in query.shape[1:3]:
    return "kernels as text need a fixed image size"
  return limits.local_attention_unsupported(
    "CUDA", geometry.kernel_size, tuple(query.shape), qkv_parts=qkv_parts
  )


def local_attention_packed(
  qkv: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  *,
  kernel_format: KernelFormat,
  pool_size: int = 1,
  **unused: Any,
) -> tf.Tensor:
  """The forward pass of `fused.local_attention_packed`, as text. Not differentiable.

  Args:
    qkv: [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] of query and value; H
      and W are static.
    relative_rows: [K of the rows, D/2] float32, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    kernel_format: "ptx" or "triton", see `custom_call_module`.
    pool_size: averages the output over blocks of pool_size x pool_size pixels.
    unused: arguments of the backward pass.

  Returns:
    [B, ceil(H / pool_size), ceil(W / pool_size), N, D] in the dtype of `qkv`.

  Raises:
    UserError: nvcc is not installed, or failed.
  """
  del unused
  batch, height, width, parts, heads, depth = qkv.shape
  kernel = PortableKernel(
    dtype=qkv.dtype.name,
    image=(height, width),
    heads=heads,
    head_dim=depth,
    geometry=geometry,
    scale=float(scale),
    has_key=parts == 3,
    has_relative=relative_rows is not None,
    pool_size=pool_size,
  )
  if pool_size > 1 and not _pools(kernel):
    output = local_attention_packed(
      qkv, relative_rows, relative_columns, geometry, scale, kernel_format=kernel_format
    )
    return average_pool_heads(output, pool_size)
  tables = [table for table in (relative_rows, relative_columns) if table is not None]
  shape = [batch, height // pool_size, width // pool_size, heads, depth]
  (output,) = call_kernel(
    _cached_module(kernel, kernel_format),
    ["CUDA"],
    [qkv, *tables],
    [tf.TensorSpec(shape, qkv.dtype)],
  )
  return output


def _pools(kernel: PortableKernel) -> bool:
  """Returns whether the kernel computes the average pooling."""
  height, width = kernel.image
  even = height % 2 == 0 and width % 2 == 0
  undilated = kernel.geometry.dilation_rate == (1, 1)
  return kernel.pool_size == 2 and even and undilated and kernel.uses_tensor_cores


def local_attention(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  *,
  kernel_format: KernelFormat,
  **unused: Any,
) -> tf.Tensor:
  """`local_attention_packed` of separate query, key and value, [B, H, W, N, D]."""
  del unused
  qkv = tf.stack([x for x in (query, key, value) if x is not None], axis=3)
  return local_attention_packed(
    qkv, relative_rows, relative_columns, geometry, scale, kernel_format=kernel_format
  )
