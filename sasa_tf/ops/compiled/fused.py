"""The `fused` implementation: one compiled kernel forward and one backward, called through XLA.

The kernels are XLA custom calls (see sasa_tf/native), so that a function compiled by XLA stays one
program. A call is a module of StableHLO for any batch and image size; XLA fills in the sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from sasa_tf.native import library
from sasa_tf.ops.average_pooling import average_pool_heads
from sasa_tf.ops.blocked import local_attention as blocked
from sasa_tf.ops.compiled.local_attention_stablehlo import KernelCall
from sasa_tf.ops.compiled.xla_custom_call import (
  ELEMENT_TYPES,
  PLATFORMS,
  call_module,
  dtype_refusal,
)
from sasa_tf.ops.qkv_packing import parts_of_projection
from sasa_tf.ops.target_device import target_device
from sasa_tf.ops.window import WindowGeometry

_LARGEST_KERNEL = 11
_LARGEST_HEAD = 128


def _platform_refusal(platform: str, width: int, geometry: WindowGeometry) -> str | None:
  """Returns why the kernels of a platform do not serve heads of this width and this window."""
  if width > _LARGEST_HEAD:
    return f"the compiled kernels take heads up to {_LARGEST_HEAD} wide, not {width}"
  if platform != "CUDA":
    return None
  if width % 4:
    return f"the compiled kernels for GPUs take heads of a width divisible by 4, not {width}"
  if min(geometry.kernel_size) < 3:
    return f"the compiled kernels for GPUs take windows of 3 or more, not {geometry.kernel_size}"
  return None


def _kernel_call(
  maps: tf.Tensor,
  geometry: WindowGeometry,
  scale: float,
  has_key: bool,
  tables: tuple[tf.Tensor | None, tf.Tensor | None],
  *,
  shared: bool,
) -> KernelCall:
  """The call for queries [B, H, W, N, D], or for all that was projected, [B, H, W, parts, N, D]."""
  heads, depth = maps.shape[-2:]
  return KernelCall(
    element=ELEMENT_TYPES[maps.dtype],
    heads=heads,
    depth=depth,
    geometry=geometry,
    scale=scale,
    has_key=has_key,
    has_relative=tables[0] is not None,
    shared=shared,
    platforms=tuple(
      platform
      for platform in library.load().platforms
      if _platform_refusal(platform, depth, geometry) is None
    ),
  )


def refusal(
  query: tf.Tensor | tf.TensorSpec, geometry: WindowGeometry, window_mask: bool
) -> str | None:
  """Returns why the compiled kernels do not serve this call, or None if they do.

  Args:
    query: [B, H, W, N, D].
    geometry: the window.
    window_mask: whether a query sees its window only.
  """
  if not window_mask:
    return "window_mask=False needs an implementation that works in blocks of queries"
  if unserved := dtype_refusal(query.dtype):
    return unserved
  if max(geometry.kernel_size) > _LARGEST_KERNEL:
    return (
      f"the compiled kernels take windows of up to {_LARGEST_KERNEL} rows and columns, not "
      f"{geometry.kernel_size}"
    )
  loaded = library.load()
  if not loaded.platforms:
    return loaded.reason
  device = target_device()
  if device not in PLATFORMS:
    return f"there are no compiled kernels for a {device}"
  if PLATFORMS[device] in loaded.platforms:
    return _platform_refusal(PLATFORMS[device], query.shape[4], geometry)
  return loaded.reason


def _attend(
  kernel: KernelCall,
  maps: Sequence[tf.Tensor | None],
  tables: Sequence[tf.Tensor | None],
  stock: Callable[..., tf.Tensor],
  again: Callable[[Sequence[tf.Tensor]], tf.Tensor] | None = None,
) -> tf.Tensor:
  """Calls the kernels, with a gradient that calls them too.

  Args:
    kernel: the call.
    maps: query, key (or None) and value, or the one array that holds them.
    tables: relative rows and columns, or None twice.
    stock: computes the same from `maps` and `tables`; second derivatives are its.
    again: computes the one array of `maps` anew, after other tensors; None to keep it.

  Returns:
    [B, H, W, N, D], or their means, if the kernels compute them.
  """
  platforms = kernel.platforms
  element, leading = maps[0].dtype, maps[0].shape[:3]
  heads = [kernel.heads, kernel.depth]
  output_type = (element, [*leading, *heads])
  nothing = (element, [0])
  means_type = nothing
  if kernel.pool_size > 1:
    batch, *sizes = leading
    means_type = (element, [batch, *[size // kernel.pool_size for size in sizes], *heads])
  gradient_types = [(element, maps[0].shape)]
  if kernel.shared:
    gradient_types += [nothing, nothing]
  else:
    gradient_types += [output_type if kernel.has_key else nothing, output_type]
  table_types = [(tf.float32, shape) for shape in kernel.table_shapes]
  optional = (*maps, *tables)

  def restored(present):
    present = iter(present)
    return [None if argument is None else next(present) for argument in optional]

  def operands(present):
    """What the kernel takes in the place of what is absent is never read."""
    *maps, rows, columns = restored(present)
    query, key, value = maps * 3 if kernel.shared else maps
    if not kernel.has_relative:
      rows, columns = (tf.zeros(shape) for shape in kernel.table_shapes)
    return [query, value if key is None else key, value, rows, columns]

  @tf.custom_gradient
  def attend(*inputs):
    output, log_sum, means = call_module(
      kernel.forward,
      platforms,
      operands(inputs),
      [output_type, (tf.float32, output_type[1][:-1]), means_type],
    )

    @tf.custom_gradient
    def gradient(*arguments):
      *inputs, upstream = arguments
      kept = inputs if again is None else [again([output, upstream]), *inputs[1:]]
      query, key, value, rows, columns, _ = call_module(
        kernel.backward,
        platforms,
        [*operands(kept), output, log_sum, upstream],
        [*gradient_types, *table_types, (tf.float32, [None])],
      )
      found = [query] if kernel.shared else [query, key, value]
      gradients = [
        g
        for g, argument in zip([*found, rows, columns], optional, strict=True)
        if argument is not None
      ]

      def second_gradient(*upstreams):
        with tf.GradientTape() as tape:
          tape.watch(arguments)
          with tf.GradientTape() as inner:
            inner.watch(inputs)
            result = average_pool_heads(stock(*restored(inputs)), kernel.pool_size)
          gradients = inner.gradient(result, inputs, upstream)
        return tape.gradient(gradients, arguments, upstreams)

      return gradients, second_gradient

    result = output if kernel.pool_size == 1 else means
    return result, lambda upstream: gradient(*inputs, upstream)

  return attend(*[argument for argument in optional if argument is not None])


def _computes_means(kernel: KernelCall, maps: tf.Tensor, size: int) -> bool:
  """Whether the kernels compute the means over blocks of size x size pixels."""
  height, width = maps.shape[1:3]
  even = None not in (height, width) and height % 2 == 0 and width % 2 == 0
  return (
    (size, target_device(), kernel.geometry.dilation_rate) == (2, "GPU", (1, 1))
    and even
    and kernel.on_tensor_cores
  )


def local_attention(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
) -> tf.Tensor:
  """As `reference.local_attention`, where `refusal` has no objection.

  First derivatives are a compiled kernel too; second ones are those of `blocked`.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None.
    value: as `query`.
    relative_rows: [K of the rows, D/2] float32, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.

  Returns:
    [B, H, W, N, D] in value's dtype.
  """
  tables = (relative_rows, relative_columns)
  kernel = _kernel_call(query, geometry, scale, key is not None, tables, shared=False)
  return _attend(
    kernel,
    (query, key, value),
    tables,
    lambda query, key, value, rows, columns: blocked.local_attention(
      query, key, value, rows, columns, geometry, scale
    ),
  )


def local_attention_of_projection(
  projected: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  again: Callable[[Sequence[tf.Tensor]], tf.Tensor] | None = None,
  pool_size: int = 1,
) -> tf.Tensor:
  """As `local_attention`, of query, key and value side by side, which are never taken apart.

  Args:
    projected: [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] of query and value.
    relative_rows: [K of the rows, D/2] float32, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    again: see `local_attention_2d_projected`.
    pool_size: likewise.

  Returns:
    [B, ceil(H / pool_size), ceil(W / pool_size), N, D] in the projection's dtype.
  """
  tables = (relative_rows, relative_columns)
  kernel = _kernel_call(projected, geometry, scale, projected.shape[3] == 3, tables, shared=True)
  if _computes_means(kernel, projected, pool_size):
    kernel = dataclasses.replace(kernel, pool_size=pool_size)
    pool_size = 1
  outputs = _attend(
    kernel,
    (projected,),
    tables,
    lambda projected, rows, columns: blocked.local_attention(
      *parts_of_projection(projected), rows, columns, geometry, scale
    ),
    again,
  )
  return average_pool_heads(outputs, pool_size)
