"""Local self-attention: of the input of the projections, and of packed query, key and value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.ops import dispatch
from sasa_tf.ops.autograph import without_autograph
from sasa_tf.ops.average_pooling import average_pool_heads
from sasa_tf.ops.checks import (
  as_packed_qkv,
  inferable_sizes,
  is_empty,
  relative_tables,
  require_floating,
  require_logits,
  reshape_inferring,
  static_size,
  window_geometry,
  with_static_shape,
  within_image,
)
from sasa_tf.ops.empty import empty_output
from sasa_tf.ops.export_context import (
  exported_gpu_kernels,
  exports_for_openvino,
  exports_stock_operations,
  is_quantizable,
  product_columns,
)
from sasa_tf.ops.local_attention import local_attention_2d
from sasa_tf.ops.pointwise import pointwise_product
from sasa_tf.ops.qkv_packing import Projection, RecomputeQkv
from sasa_tf.ops.types import Border, ImplementationName, IntOrPair
from sasa_tf.ops.window import WindowGeometry
from sasa_tf.ops.xla_barriers import recompute_barrier, target_device

# Images of up to this size save their projections on a GPU. In ResNet-50 at 224 pixels these are
# stages 3 and 4, 5 % of the memory of a training step.
_MAX_SAVED_PIXELS = 16 * 16


def _saves_qkv(query: tf.TensorSpec) -> bool:
  """Returns whether to save packed QKV for the backward pass even if it can be recomputed."""
  device, (height, width) = target_device(), query.shape[1:3]
  if device == "GPU":
    if height is None or width is None:
      return False
    return height * width <= _MAX_SAVED_PIXELS
  return device == "CPU"  # has much memory, and slow matrix products


@without_autograph
def local_attention_2d_qkv_packed(
  qkv: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  kernel_size: IntOrPair = 7,
  dilation_rate: IntOrPair = 1,
  border: Border = "zero",
  scale: float = 1.0,
  implementation: ImplementationName = "auto",
  pool_size: int = 1,
  recompute_qkv: RecomputeQkv | None = None,
) -> tf.Tensor:
  """`local_attention_2d` of query, key and value packed into one tensor.

  The compiled kernels read packed QKV in place and write its gradient likewise. The other
  implementations split it.

  Args:
    qkv: [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] of query and value to
      attend by position alone.
    relative_rows: [K of the rows, D/2] or None.
    relative_columns: [K of the columns, D/2] or None.
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask", see `local_attention_2d`.
    scale: multiplies the query.
    implementation: "auto" or one of `available_implementations()`.
    pool_size: averages the output over blocks of pool_size x pool_size pixels, which replaces
      strides (paper Sec. 3.1). The compiled GPU kernels fuse the pooling and its gradient.
    recompute_qkv: rematerializes `qkv` in the backward pass, so that it need not be saved. Called
      with the tensors that the recomputation must depend on, see `recompute_barrier`. It must not
      read variables. Not used where saving is cheaper: by "reference", on CPUs, and on GPUs for
      small images.

  Returns:
    [B, ceil(H / pool_size), ceil(W / pool_size), N, D] in the dtype of `qkv`.

  Raises:
    ValueError: shapes, dtypes or arguments do not match, or the implementation does not support
      them.
  """
  return _attend_packed(
    qkv,
    (relative_rows, relative_columns),
    window_geometry(kernel_size, dilation_rate, border),
    scale,
    implementation,
    pool_size=pool_size,
    recompute_qkv=recompute_qkv,
  )


def _attend_packed(
  qkv: Any,
  tables: tuple[Any, Any],
  geometry: WindowGeometry,
  scale: float,
  implementation: ImplementationName,
  *,
  pool_size: int,
  recompute_qkv: RecomputeQkv | None,
  projection: Projection | None = None,
) -> tf.Tensor:
  """`local_attention_2d_qkv_packed` of tables and window.

  `projection` is the product that `qkv` is, if it has no bias.
  """
  qkv, query = as_packed_qkv(qkv)
  geometry = within_image(geometry, *query.shape[1:3])
  tables = relative_tables(*tables, query, geometry.kernel_size)
  require_logits(qkv.shape[3] == 3, tables[0])
  request = dispatch.AttentionRequest(query, geometry, window_mask=True, qkv_parts=qkv.shape[3])
  selected = dispatch.select(implementation, request)
  if is_empty(query):
    rows, columns = (-(-size // pool_size) for size in tf.unstack(tf.shape(qkv)[1:3]))
    return empty_output(qkv[:, :rows, :columns, -1], tables)
  with tf.name_scope("local_attention_2d_qkv_packed"):
    output = selected.attend_packed(
      qkv,
      *tables,
      geometry,
      scale,
      recompute_qkv=None if _saves_qkv(query) else recompute_qkv,
      projection=projection,
      pool_size=pool_size,
    )
    pooled = [None if size is None else -(-size // pool_size) for size in query.shape[1:3]]
    return with_static_shape(output, [query.shape[0], *pooled, *query.shape[3:]])


def _checked_projections(
  inputs: Any, kernels: Sequence[Any], biases: Sequence[Any], num_heads: int
) -> tuple[tf.Tensor, list[tf.Tensor | None], list[tf.Tensor | None]]:
  """Returns the arguments of `local_self_attention_2d` as tensors of the dtype of `inputs`.

  Raises:
    ValueError: a shape, a dtype or a number of tensors is wrong.
  """
  inputs = tf.convert_to_tensor(inputs)
  if inputs.shape.rank != 4 or inputs.shape[3] is None:
    raise ValueError(
      "inputs must have shape [B, H, W, C], with the C channels known when the graph is built; "
      f"received {inputs.shape}."
    )
  require_floating("inputs", inputs)

  def checked(name: str, tensors: Sequence[Any], shape: list[int | None]) -> list[tf.Tensor | None]:
    received = [None if x is None else tf.convert_to_tensor(x) for x in tensors]
    known = [x.shape for x in received if x is not None]
    if len(received) != 3 or any(
      size.rank != len(shape)
      or not size.is_fully_defined()
      or not size.is_compatible_with(shape)
      or size != known[0]
      for size in known
    ):
      raise ValueError(
        f"{name} must be those of query, key and value, each of shape {shape} with one number of "
        f"filters; received {[None if x is None else tuple(x.shape) for x in received]} for "
        f"inputs {inputs.shape}."
      )
    return [None if x is None else tf.cast(x, inputs.dtype) for x in received]

  kernels = checked("kernels", kernels, [inputs.shape[3], None])
  query, key, value = kernels
  if query is None or value is None:
    raise ValueError(
      "kernels must have one of the query and one of the value, only that of the key may be None; "
      f"received query {query} and value {value}."
    )
  filters = static_size(query, 1)
  if num_heads < 1 or filters % num_heads:
    raise ValueError(
      f"the filters of each kernel must be a multiple of num_heads; received {filters} filters and "
      f"num_heads={num_heads}."
    )
  biases = checked("biases", biases, [filters])
  if key is None and biases[1] is not None:
    raise ValueError("biases must have None for the key where kernels do; received a key bias.")
  return inputs, kernels, biases


def _affine(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
  """Returns inputs [B, H, W, C] times a kernel [C, F], plus a bias [F]."""
  if inputs.shape.is_fully_defined():
    outputs = tf.tensordot(inputs, kernel, axes=1)
  else:
    outputs = pointwise_product(inputs, kernel)
  return outputs if bias is None else outputs + bias


def _join_projections(
  kernels: Sequence[tf.Tensor | None], biases: Sequence[tf.Tensor | None]
) -> list[tf.Tensor]:
  """Returns the concatenated kernels and, if there are any, the concatenated biases."""
  present = [kernel for kernel in kernels if kernel is not None]
  joined = [tf.concat(present, axis=-1)]
  if any(bias is not None for bias in biases):
    zeros = tf.zeros([static_size(present[0], 1)], present[0].dtype)
    pairs = zip(kernels, biases, strict=True)
    joined.append(
      tf.concat(
        [zeros if bias is None else bias for kernel, bias in pairs if kernel is not None], axis=-1
      )
    )
  return joined


def _project(inputs: tf.Tensor, projection: list[tf.Tensor], parts: int, num_heads: int):
  """Returns packed query, key and value, or query and value: [B, H, W, parts, N, D]."""
  # One matrix product for all projections reads the input once.
  projected = _affine(inputs, *projection)
  head_dim = static_size(projected, 3) // (parts * num_heads)
  return reshape_inferring(projected, [*inferable_sizes(inputs)[:3], parts, num_heads, head_dim])


def project_qkv(
  inputs: tf.Tensor, kernels: Sequence[Any], num_heads: int, biases: Sequence[Any]
) -> tf.Tensor:
  """Returns the packed query, key and value of `local_self_attention_2d`.

  Args:
    inputs: [B, H, W, C].
    kernels: see `local_self_attention_2d`.
    num_heads: number of heads N.
    biases: see `local_self_attention_2d`.

  Returns:
    [B, H, W, 3, N, D], or [B, H, W, 2, N, D] of query and value without keys.
  """
  inputs, kernels, biases = _checked_projections(inputs, kernels, biases, num_heads)
  parts = 2 if kernels[1] is None else 3
  return _project(inputs, _join_projections(kernels, biases), parts, num_heads)


def _exports_separate_projections() -> bool:
  """Returns whether a float model in stock operations is being exported for TensorFlow.

  It takes longer for a single product and its split than for three products.
  """
  if tf.executing_eagerly():
    return False
  stock = exports_stock_operations() and exported_gpu_kernels() is None
  other_runtime = is_quantizable() or exports_for_openvino() or product_columns() > 0
  return stock and not other_runtime


@without_autograph
def local_self_attention_2d(
  inputs: tf.Tensor,
  kernels: Sequence[tf.Tensor | None],
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  num_heads: int = 8,
  biases: Sequence[tf.Tensor | None] = (None, None, None),
  kernel_size: IntOrPair = 7,
  dilation_rate: IntOrPair = 1,
  border: Border = "zero",
  scale: float = 1.0,
  implementation: ImplementationName = "auto",
  pool_size: int = 1,
) -> tf.Tensor:
  """`local_attention_2d` of query, key and value that are pointwise projections of one input.

  This is what `LocalSelfAttention2D` computes. The backward pass recomputes the projections where
  saving query, key and value takes more than it saves: on accelerators, except on GPUs for small
  images, and except with "reference".

  Args:
    inputs: [B, H, W, C].
    kernels: those of query, key and value, each [C, N * D]; None for the key to attend by position
      alone. They are cast to the dtype of `inputs`.
    relative_rows: [K of the rows, D/2] or None.
    relative_columns: [K of the columns, D/2] or None.
    num_heads: number of heads N.
    biases: those of query, key and value, each [N * D] or None.
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask", see `local_attention_2d`. With "zero", the key and value of a neighbor
      outside the image are zero, also with biases.
    scale: multiplies the query.
    implementation: "auto" or one of `available_implementations()`.
    pool_size: see `local_attention_2d_qkv_packed`.

  Returns:
    [B, ceil(H / pool_size), ceil(W / pool_size), N, D] in the dtype of `inputs`.

  Raises:
    ValueError: shapes, dtypes or arguments do not match, or the implementation does not support
      them.
  """
  inputs, kernels, biases = _checked_projections(inputs, kernels, biases, num_heads)
  arguments: dict[str, Any] = {
    "kernel_size": kernel_size,
    "dilation_rate": dilation_rate,
    "border": border,
    "scale": scale,
    "implementation": implementation,
  }
  tables = (relative_rows, relative_columns)
  if _exports_separate_projections():
    size = inferable_sizes(inputs)[:3]
    query, key, value = (
      None
      if kernel is None
      else reshape_inferring(
        _affine(inputs, kernel, bias), [*size, num_heads, static_size(kernel, 1) // num_heads]
      )
      for kernel, bias in zip(kernels, biases, strict=True)
    )
    return average_pool_heads(
      local_attention_2d(query, key, value, *tables, **arguments), pool_size
    )
  joined = _join_projections(kernels, biases)
  parts = 2 if kernels[1] is None else 3
  return _attend_packed(
    _project(inputs, joined, parts, num_heads),
    tables,
    window_geometry(kernel_size, dilation_rate, border),
    scale,
    implementation,
    pool_size=pool_size,
    # Recomputed, because query, key and value take three times the memory of the input.
    recompute_qkv=lambda earlier: _project(
      inputs, recompute_barrier(earlier, joined), parts, num_heads
    ),
    projection=Projection(inputs, joined[0]) if len(joined) == 1 and parts == 3 else None,
  )
