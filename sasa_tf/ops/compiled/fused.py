"""The `fused` implementation: one compiled kernel forward and one backward, called through XLA.

The kernels are XLA custom calls (see sasa_tf/native), so a function compiled by XLA stays one
program. Logits never reach memory: the forward pass uses an online softmax and saves the
log-sum-exp (LSE), the backward pass rematerializes the probabilities from it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.native import library, limits
from sasa_tf.ops.average_pooling import average_pool_heads
from sasa_tf.ops.blocked import local_attention as blocked
from sasa_tf.ops.checks import static_size
from sasa_tf.ops.compiled import fused_projection
from sasa_tf.ops.compiled.local_attention_stablehlo import (
  PROJECTED_PLATFORMS,
  LocalAttentionCall,
)
from sasa_tf.ops.compiled.xla_custom_call import (
  ELEMENT_TYPES,
  PLATFORMS,
  call_kernel,
  unsupported_dtype,
)
from sasa_tf.ops.derivatives import vector_jacobian_product
from sasa_tf.ops.qkv_packing import Projection, RecomputeQkv, split_qkv
from sasa_tf.ops.window import WindowGeometry
from sasa_tf.ops.xla_barriers import compiled_for_gpu, target_device

# Cached so that an eager call neither checks the limits nor writes StableHLO a second time.
_cached_call = functools.cache(LocalAttentionCall)
_projected_forward = functools.cache(LocalAttentionCall.projected_forward)
_projected_backward = functools.cache(LocalAttentionCall.projected_backward)
_unsupported_by_limits = functools.lru_cache(maxsize=4096)(limits.local_attention_unsupported)

# Of the forward kernel with the projections inside, which has been measured on Hopper GPUs only.
_MIN_PROJECTED_CAPABILITY = (9, 0)


def unsupported_reason(
  query: tf.Tensor | tf.TensorSpec, geometry: WindowGeometry, window_mask: bool, qkv_parts: int = 1
) -> str | None:
  """Returns why the compiled kernels do not support these arguments, or None if they do.

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
  # First the limits of all platforms, which need no built library.
  shape = tuple(query.shape)
  unsupported = _unsupported_by_limits("CPU", geometry.kernel_size, shape)
  if unsupported:
    return unsupported
  loaded = library.load()
  if not loaded.platforms:
    return loaded.reason
  device = target_device()
  if device not in PLATFORMS:
    return f"there are no compiled kernels for a {device}"
  if PLATFORMS[device] in loaded.platforms:
    return _unsupported_by_limits(
      PLATFORMS[device], geometry.kernel_size, shape, qkv_parts=qkv_parts
    )
  return loaded.reason


def _kernel_call(
  maps: Sequence[Any],
  tables: Sequence[tf.Tensor | None],
  geometry: WindowGeometry,
  scale: float,
) -> LocalAttentionCall:
  """Returns the call for [query, key, value], or for [packed QKV]."""
  first, packed = maps[0], len(maps) == 1
  heads, depth = first.shape[-2:]
  any_image = (None, None, None, heads, depth)
  return _cached_call(
    element=ELEMENT_TYPES[first.dtype],
    heads=heads,
    depth=depth,
    geometry=geometry,
    scale=float(scale),
    has_key=first.shape[3] == 3 if packed else maps[1] is not None,
    has_relative=tables[0] is not None,
    packed=packed,
    platforms=tuple(
      platform
      for platform in library.load().platforms
      if not _unsupported_by_limits(platform, geometry.kernel_size, any_image)
    ),
  )


@dataclasses.dataclass(frozen=True)
class _FusedAttention:
  """Local attention by the compiled kernels, with all derivatives.

  Inputs are always [query, key, value, rows, columns] or [packed QKV, rows, columns], without those
  that are None.

  Attributes:
    call: the custom calls.
    present: for each input, None included, whether it is a tensor.
    stock: computes the same from all inputs in TensorFlow operations; for second derivatives.
    recompute_qkv: see `local_attention_2d_qkv_packed`.
    projection: of the packed QKV, which the forward kernel then computes itself instead of reading
      it. XLA removes the product that nothing else reads.
    projects_backward: whether the backward kernel does too, instead of `recompute_qkv`.
  """

  call: LocalAttentionCall
  present: tuple[bool, ...]
  stock: Callable[..., tf.Tensor]
  recompute_qkv: RecomputeQkv | None = None
  projection: Projection | None = None
  projects_backward: bool = False

  def _with_none(self, inputs: Sequence[tf.Tensor]) -> list[Any]:
    """Returns the inputs with None in the place of those that are absent."""
    remaining = iter(inputs)
    return [next(remaining) if present else None for present in self.present]

  def _operands(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the kernel's operands, with placeholders that it never reads for absent inputs."""
    *maps, rows, columns = self._with_none(inputs)
    query, key, value = maps * 3 if self.call.packed else maps
    if not self.call.has_relative:
      rows, columns = (tf.zeros(shape) for shape in self.call.table_shapes)
    return [query, value if key is None else key, value, rows, columns]

  def _output_spec(self, first: tf.Tensor) -> tf.TensorSpec:
    """Returns the spec of the attention's output, [B, H, W, N, D]."""
    return tf.TensorSpec([*first.shape[:3], self.call.heads, self.call.depth], first.dtype)

  def _pooled_spec(self, output: tf.TensorSpec) -> tf.TensorSpec:
    """Returns the spec of the pooled output; [0] if the kernels do not pool."""
    pool_size = self.call.pool_size
    if pool_size == 1:
      return tf.TensorSpec([0], output.dtype)
    shape: Any = output.shape
    batch, *sizes, heads, depth = shape
    pooled = [batch, *[size // pool_size for size in sizes], heads, depth]
    return tf.TensorSpec(pooled, output.dtype)

  def forward(self, *inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns output [B, H, W, N, D], LSE [B, H, W, N], and the pooled output (or [0])."""
    output = self._output_spec(inputs[0])
    lse = tf.TensorSpec(output.shape[:-1], tf.float32)
    if self.projection is not None:
      outputs = self._projected_forward(self.projection, inputs, [output, lse])
      return *outputs, tf.zeros([0], output.dtype)
    specs = [output, lse, self._pooled_spec(output)]
    output, lse, pooled = call_kernel(
      self.call.forward, self.call.platforms, self._operands(inputs), specs
    )
    return output, lse, pooled

  def _projected_forward(
    self, projection: Projection, inputs: Sequence[tf.Tensor], specs: Sequence[tf.TensorSpec]
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns output and LSE from the input of the projections."""
    output, lse = call_kernel(
      _projected_forward(self.call, static_size(projection.inputs, 3), specs[1].shape.rank > 1),
      PROJECTED_PLATFORMS,
      self._projected_operands(projection, inputs),
      specs,
    )
    return output, lse

  def _projected_operands(
    self, projection: Projection, inputs: Sequence[tf.Tensor]
  ) -> list[tf.Tensor]:
    """Returns the input of the projections, their kernel [C, 3, N, D] and both tables."""
    # The gradients of both are those of packed QKV.
    pixels, kernel = map(tf.stop_gradient, (projection.inputs, projection.kernel))
    shape = [static_size(pixels, 3), 3, self.call.heads, self.call.depth]
    return [pixels, tf.reshape(kernel, shape), *self._operands(inputs)[3:]]

  def inference(self, *inputs: tf.Tensor) -> tf.Tensor:
    """Returns the result of a call, without what only gradients need."""
    output = self._output_spec(inputs[0])
    if self.projection is not None:
      specs = [output, tf.TensorSpec([0], tf.float32)]
      return self._projected_forward(self.projection, inputs, specs)[0]
    empty = [tf.TensorSpec([0], output.dtype), tf.TensorSpec([0], tf.float32)]
    specs = [*empty, self._pooled_spec(output)]
    *_, pooled = call_kernel(
      self.call.inference, self.call.platforms, self._operands(inputs), specs
    )
    return pooled

  def backward(
    self, inputs: Sequence[tf.Tensor], output: tf.Tensor, lse: tf.Tensor, upstream: tf.Tensor
  ) -> list[tf.Tensor]:
    """Returns the gradients of the inputs.

    Args:
      inputs: those of `forward`.
      output: from `forward`.
      lse: from `forward`.
      upstream: gradient of the output, or of the pooled output if there is one.
    """
    first = inputs[0]
    tables = [tf.TensorSpec(shape, tf.float32) for shape in self.call.table_shapes]
    scratch = tf.TensorSpec([None], tf.float32)
    if self.projection is not None and self.projects_backward:
      *gradients, _ = call_kernel(
        _projected_backward(self.call, static_size(self.projection.inputs, 3)),
        PROJECTED_PLATFORMS,
        [*self._projected_operands(self.projection, inputs), output, lse, upstream],
        [tf.TensorSpec(first.shape, first.dtype), *tables, scratch],
      )
      return self._of_present(gradients)
    operands = inputs
    if self.recompute_qkv is not None:
      operands = [self.recompute_qkv([output, upstream]), *inputs[1:]]
    absent = tf.TensorSpec([0], first.dtype)
    part = absent if self.call.packed else self._output_spec(first)
    specs = [
      tf.TensorSpec(first.shape, first.dtype),
      part if self.call.has_key else absent,
      part,
      *tables,
      scratch,
    ]
    d_query, d_key, d_value, d_rows, d_columns, _ = call_kernel(
      self.call.backward,
      self.call.platforms,
      [*self._operands(operands), output, lse, upstream],
      specs,
    )
    d_maps = [d_query] if self.call.packed else [d_query, d_key, d_value]
    return self._of_present([*d_maps, d_rows, d_columns])

  def _of_present(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the gradients of the inputs that are not absent."""
    return [g for g, present in zip(gradients, self.present, strict=True) if present]

  def stock_forward(self, *inputs: tf.Tensor) -> tf.Tensor:
    """The result of a call, in differentiable TensorFlow operations."""
    return average_pool_heads(self.stock(*self._with_none(inputs)), self.call.pool_size)

  def stock_gradients(self, *arguments: tf.Tensor) -> Any:
    """`backward` of the inputs and an upstream gradient, in differentiable operations."""
    *inputs, upstream = arguments
    return vector_jacobian_product(self.stock_forward, inputs, [upstream])

  def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
    """Returns the output, or the pooled output if the kernels compute it."""
    pools = self.call.pool_size > 1
    has_inference = pools or self.projection is not None
    saves_residuals = not has_inference or compat.may_record_gradients()

    @tf.custom_gradient
    def attend(*inputs: tf.Tensor) -> Any:
      if saves_residuals:
        output, lse, pooled = self.forward(*inputs)
        result = pooled if pools else output
      else:
        result = self.inference(*inputs)

      @tf.custom_gradient
      def gradient(*arguments: tf.Tensor) -> Any:
        *inputs, upstream = arguments

        def second_gradient(*upstreams: Any) -> Any:
          return vector_jacobian_product(self.stock_gradients, arguments, upstreams)

        # Without a tape here, as in a tf.function whose gradient is taken from outside, the forward
        # pass is computed again.
        residuals = (output, lse) if saves_residuals else self.forward(*inputs)[:2]
        return self.backward(inputs, *residuals, upstream), second_gradient

      def first_gradient(upstream: tf.Tensor) -> Any:
        if compat.carries_tangents([*inputs, upstream]):
          return self.stock_gradients(*inputs, upstream)
        return gradient(*inputs, upstream)

      return result, first_gradient

    return self.stock_forward(*inputs) if compat.carries_tangents(inputs) else attend(*inputs)


def _attend(
  call: LocalAttentionCall,
  inputs: Sequence[tf.Tensor | None],
  stock: Callable[..., tf.Tensor],
  recompute_qkv: RecomputeQkv | None = None,
  projection: Projection | None = None,
  projects_backward: bool = False,
) -> tf.Tensor:
  """Calls the kernels with maps and tables, of which some may be None."""
  present = tuple(x is not None for x in inputs)
  attention = _FusedAttention(call, present, stock, recompute_qkv, projection, projects_backward)
  return attention(*[x for x in inputs if x is not None])


def local_attention(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  *,
  window_mask: bool = True,
) -> tf.Tensor:
  """`reference.local_attention` where `unsupported_reason` returns None.

  First derivatives are a compiled kernel too; second derivatives are those of `blocked`.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None.
    value: as `query`.
    relative_rows: [K of the rows, D/2] float32, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    window_mask: True, see `unsupported_reason`.

  Returns:
    [B, H, W, N, D] in value's dtype.
  """
  del window_mask
  maps, tables = (query, key, value), (relative_rows, relative_columns)
  return _attend(
    _kernel_call(maps, tables, geometry, scale),
    (*maps, *tables),
    lambda query, key, value, rows, columns: blocked.local_attention(
      query, key, value, rows, columns, geometry, scale
    ),
  )


@functools.cache
def _with_pooling(call: LocalAttentionCall, pool_size: int) -> LocalAttentionCall:
  return dataclasses.replace(call, pool_size=pool_size)


def _pools(call: LocalAttentionCall, qkv: tf.Tensor, pool_size: int) -> bool:
  """Returns whether the kernels compute the average pooling."""
  shape: Any = qkv.shape
  batch, height, width, parts, heads, depth = shape
  even = None not in (height, width) and height % 2 == 0 and width % 2 == 0
  return (
    (pool_size, target_device(), call.geometry.dilation_rate) == (2, "GPU", (1, 1))
    and even
    and limits.uses_tensor_cores(
      qkv.dtype.name,
      call.geometry.kernel_size,
      (batch, height, width, heads, depth),
      call.scale,
      qkv_parts=parts,
    )
  )


def _projects(
  call: LocalAttentionCall, projection: Projection, recompute_qkv: RecomputeQkv | None
) -> bool:
  """Returns whether the forward kernel computes the projection itself.

  Outside of XLA, or if the backward pass needs packed QKV of the forward pass, the product is
  computed in any case.
  """
  return (
    recompute_qkv is not None
    and compiled_for_gpu()
    and library.gpu_capability() >= _MIN_PROJECTED_CAPABILITY
    and PLATFORMS["GPU"] in call.platforms
    and call.geometry.dilation_rate == (1, 1)
    and limits.supports_projections(*_projected_problem(call, projection))
  )


def _projected_problem(
  call: LocalAttentionCall, projection: Projection
) -> tuple[str, tuple[int, int], tuple[int | None, ...], int, float]:
  """Returns the arguments of `limits.supports_projections`."""
  shape: Any = projection.inputs.shape
  size = (*shape[:3], call.heads, call.depth)
  return projection.inputs.dtype.name, call.geometry.kernel_size, size, shape[3], call.scale


def _projects_backward(call: LocalAttentionCall, projection: Projection) -> bool:
  """Returns whether the backward kernel computes the projection, where the forward kernel does."""
  problem = _projected_problem(call, projection)
  return (
    fused_projection.has_hopper_kernels()
    and limits.supports_projected_backward(*problem)
    and limits.projected_backward_is_faster(*problem[1:3])
  )


def local_attention_packed(
  qkv: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  *,
  recompute_qkv: RecomputeQkv | None = None,
  projection: Projection | None = None,
  pool_size: int = 1,
) -> tf.Tensor:
  """`local_attention` of packed query, key and value, which the kernels read in place.

  Args:
    qkv: [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] of query and value.
    relative_rows: [K of the rows, D/2] float32, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    recompute_qkv: see `local_attention_2d_qkv_packed`.
    projection: the product that `qkv` is, if it has no bias.
    pool_size: see `local_attention_2d_qkv_packed`.

  Returns:
    [B, ceil(H / pool_size), ceil(W / pool_size), N, D] in the dtype of `qkv`.
  """
  tables = (relative_rows, relative_columns)
  call = _kernel_call((qkv,), tables, geometry, scale)
  if _pools(call, qkv, pool_size):
    call, pool_size = _with_pooling(call, pool_size), 1
  if projection is not None and compiled_for_gpu() and fused_projection.is_faster(projection):
    qkv = fused_projection.with_gradients(qkv, projection)
  if projection is not None and not (
    call.pool_size == 1 and _projects(call, projection, recompute_qkv)
  ):
    projection = None
  projects_backward = projection is not None and _projects_backward(call, projection)
  output = _attend(
    call,
    (qkv, *tables),
    lambda qkv, rows, columns: blocked.local_attention(
      *split_qkv(qkv), rows, columns, geometry, scale
    ),
    recompute_qkv,
    projection,
    projects_backward,
  )
  return average_pool_heads(output, pool_size) if pool_size > 1 else output
