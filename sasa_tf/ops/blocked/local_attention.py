"""The `blocked` implementation: exact local attention as matrix products of haloed blocks.

A block of queries is multiplied with the tile of keys that it needs: its own pixels and a halo of
half a window around them (as in HaloNet). The window mask, the border mask and q.r are separable
into rows and columns, and are added to the logits as two small bias terms. As in FlashAttention,
the backward pass rematerializes the probabilities from the log-sum-exp (LSE) of the logits, and
uses delta = sum_d(output * d_output) for the gradient of the softmax.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.blocked import export_attention, matmul_attention
from sasa_tf.ops.blocked.block_sizes import block_size, export_block_size
from sasa_tf.ops.blocked.chunked_map import chunk_count, chunked_map
from sasa_tf.ops.blocked.halo_tiling import HaloTiling
from sasa_tf.ops.blocked.matmul_attention import Operands
from sasa_tf.ops.blocked.separable_bias import separable_bias
from sasa_tf.ops.checks import inferable_sizes, sizes, softmax_dtype, static_size
from sasa_tf.ops.derivatives import recorded, vector_jacobian_product
from sasa_tf.ops.export_context import is_tracing_for_export
from sasa_tf.ops.precision import product_dtype
from sasa_tf.ops.window import WindowGeometry
from sasa_tf.ops.xla_barriers import recompute_barrier

# Recomputes query, key (or None) and value after the given tensors.
Recompute = Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor | None]]


@dataclasses.dataclass(frozen=True)
class _BlockedAttention:
  """Local attention with its static arguments bound.

  All methods take the inputs in the order query, key, value, relative_rows, relative_columns, with
  None for those that are absent.
  """

  tiling: HaloTiling
  scale: float
  window_mask: bool

  def _queries(self, query: tf.Tensor) -> tf.Tensor:
    """Returns scaled blocks of queries [G, queries, D] in the softmax's dtype."""
    queries = tf.cast(self.tiling.split_queries(query), softmax_dtype(query.dtype))
    return queries if self.scale == 1.0 else queries * self.scale

  def _operands(
    self,
    queries: tf.Tensor,
    key: tf.Tensor | None,
    value: tf.Tensor,
    rows: tf.Tensor | None,
    columns: tf.Tensor | None,
  ) -> Operands:
    tiling, dtype = self.tiling, product_dtype(value.dtype)
    batch, _, _, heads, _ = sizes(value)
    return Operands(
      None if key is None else tf.cast(queries, dtype),
      None if key is None else tf.cast(tiling.split_keys(key), dtype),
      tf.cast(tiling.split_keys(value), dtype),
      *separable_bias(queries, rows, columns, tiling, batch * heads, self.window_mask),
    )

  def _image_chunks(self, value: tf.Tensor) -> int:
    batch, _, _, heads, _ = sizes(value)
    return chunk_count(batch, heads * self.tiling.blocks * self.tiling.logits)

  def _block_chunks(self, operands: Operands) -> int:
    return chunk_count(sizes(operands.values)[0], self.tiling.logits)

  def forward(
    self,
    query: tf.Tensor,
    key: tf.Tensor | None,
    value: tf.Tensor,
    rows: tf.Tensor | None,
    columns: tf.Tensor | None,
    *,
    chunked: bool = True,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the output [B, H, W, N, D] and the LSE [B, N * blocks, 1, queries]."""
    chunks = self._image_chunks(value) if chunked else 1
    queries, dtype = math.prod(self.tiling.block), softmax_dtype(value.dtype)
    like = None
    if chunks > 1:
      lse_shape = [value.shape[0], static_size(value, 3) * self.tiling.blocks, 1, queries]
      like = (tf.TensorSpec(value.shape, value.dtype), tf.TensorSpec(lse_shape, dtype))

    def attend_images(query, key, value):
      operands = self._operands(self._queries(query), key, value, rows, columns)
      batch, _, _, heads, depth = sizes(value)
      blocks = operands.values.shape[0]
      outputs, lse = chunked_map(
        matmul_attention.forward,
        [operands],
        like=[tf.TensorSpec([blocks, *shape], dtype) for shape in ([queries, depth], [1, queries])],
        chunks=self._block_chunks(operands) if chunked else 1,
      )
      lse = tf.reshape(lse, [batch, heads * self.tiling.blocks, 1, queries])
      return tf.cast(self.tiling.join_queries(outputs, heads), value.dtype), lse

    return chunked_map(attend_images, [query, key, value], like, chunks)

  def backward(
    self,
    inputs: Sequence[Any],
    output: tf.Tensor,
    lse: tf.Tensor,
    upstream: tf.Tensor,
  ) -> list[Any]:
    """Returns the gradients of the inputs, with logits and probabilities rematerialized."""
    query, key, value, rows, columns = inputs
    chunks = self._image_chunks(value)
    like = [None if x is None else tf.TensorSpec(x.shape, x.dtype) for x in (query, key, value)] + [
      None if x is None else tf.TensorSpec([chunks, *x.shape], x.dtype) for x in (rows, columns)
    ]

    def images_backward(query, key, value, output, lse, upstream):
      inputs = (query, key, value, rows, columns)
      *d_maps, d_rows, d_columns = self._images_backward(inputs, output, lse, upstream)
      d_tables = [None if x is None else x[None] for x in (d_rows, d_columns)]
      return [*d_maps, *d_tables]

    *d_maps, d_rows, d_columns = chunked_map(
      images_backward, [query, key, value, output, lse, upstream], like, chunks
    )
    d_tables = [None if x is None else tf.reduce_sum(x, axis=0) for x in (d_rows, d_columns)]
    return [*d_maps, *d_tables]

  def _images_backward(
    self,
    inputs: Sequence[Any],
    output: tf.Tensor,
    lse: tf.Tensor,
    upstream: tf.Tensor,
  ) -> list[Any]:
    """`backward` of one chunk of images."""
    query, key, value, rows, columns = inputs
    tiling, heads, dtype = self.tiling, static_size(value, 3), lse.dtype
    lse = tf.reshape(lse, [-1, 1, math.prod(tiling.block)])
    operands, bias_gradient = recorded(
      lambda queries, *tables: self._operands(queries, key, value, *tables),
      [self._queries(query), rows, columns],
    )
    delta = tf.cast(upstream, dtype) * tf.cast(output, dtype)
    delta = tiling.split_queries(tf.reduce_sum(delta, axis=-1, keepdims=True))
    upstream = tf.cast(tiling.split_queries(upstream), operands.values.dtype)
    gradients = chunked_map(
      matmul_attention.backward,
      [operands, lse, tf.linalg.matrix_transpose(delta), upstream],
      like=matmul_attention.gradient_specs(operands),
      chunks=self._block_chunks(operands),
    )
    d_queries = [] if key is None else [gradients.queries]
    d_tables = [None, None]
    if rows is not None:
      d_queries_by_bias, *d_tables = bias_gradient(_present(operands[3:]), _present(gradients[3:]))
      d_queries.append(d_queries_by_bias)
    return [
      tf.cast(tiling.join_queries(tf.add_n(d_queries) * self.scale, heads), query.dtype),
      None if key is None else tf.cast(tiling.fold_keys(gradients.keys, heads), key.dtype),
      tf.cast(tiling.fold_keys(gradients.values, heads), value.dtype),
      *d_tables,
    ]


def _present(tensors: Iterable[tf.Tensor | None]) -> list[tf.Tensor]:
  return [tensor for tensor in tensors if tensor is not None]


def _differentiable(
  attention: _BlockedAttention,
  inputs: Sequence[tf.Tensor | None],
  recompute: Recompute | None,
) -> tf.Tensor:
  """Returns the output of `attention`, with `attention.backward` as its gradient."""

  def with_none(present: Iterable[tf.Tensor]) -> list[Any]:
    present = iter(present)
    return [None if x is None else next(present) for x in inputs]

  def stock(*present: tf.Tensor) -> tf.Tensor:
    # TensorFlow has no gradient of products of half-precision operands with float32 results.
    value: Any = inputs[2]
    exact = [tf.cast(x, softmax_dtype(value.dtype)) for x in present]
    output, _ = attention.forward(*with_none(exact), chunked=False)
    return tf.cast(output, value.dtype)

  def stock_gradient(*arguments: tf.Tensor) -> Any:
    *present, upstream = arguments
    return vector_jacobian_product(stock, present, [upstream])

  @tf.custom_gradient
  def attend(*present: tf.Tensor) -> Any:
    output, lse = attention.forward(*with_none(present))

    @tf.custom_gradient
    def gradient(*arguments: tf.Tensor) -> Any:
      *present, upstream = arguments
      if recompute is None:
        saved = with_none(recompute_barrier([output, upstream], present))
      else:
        saved = [*recompute([output, upstream]), *with_none(present)[3:]]
      gradients = _present(attention.backward(saved, output, lse, upstream))

      def second_gradient(*upstreams: Any) -> Any:
        return vector_jacobian_product(stock_gradient, arguments, upstreams)

      return gradients, second_gradient

    def first_gradient(upstream: tf.Tensor) -> Any:
      if compat.carries_tangents([*present, upstream]):
        return stock_gradient(*present, upstream)
      return gradient(*present, upstream)

    return output, first_gradient

  present = _present(inputs)
  return stock(*present) if compat.carries_tangents(present) else attend(*present)


def unsupported_reason(
  query: tf.Tensor | tf.TensorSpec, geometry: WindowGeometry, window_mask: bool, qkv_parts: int = 1
) -> str | None:
  """Returns None: all arguments are supported."""
  del query, geometry, window_mask, qkv_parts
  return None


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
  block: tuple[int, int] | None = None,
  recompute: Recompute | None = None,
) -> tf.Tensor:
  """Computes the same as `reference.local_attention`.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None.
    value: as `query`.
    relative_rows: [K of the rows, D/2] in the softmax's dtype, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    window_mask: False lets every query attend to all keys of its block's tile (HaloNet's
      relaxation). Blocks then have the kernel's size, because they affect the result, and offsets
      outside the window use the embedding of its edge.
    block: (rows, columns) of queries in a block; None selects them by the image's size.
    recompute: rematerializes query, key and value in the backward pass, after the given tensors;
      None saves them.

  Returns:
    [B, H, W, N, D] in value's dtype.
  """
  exported = is_tracing_for_export()
  _, height, width, _, _ = inferable_sizes(query)
  static = (query.shape[1], query.shape[2])
  if block is None and not window_mask:
    block = geometry.kernel_size
  elif block is None and exported:
    block = export_block_size(static, geometry, query.shape[4])
  elif block is None:
    block = block_size(static, geometry)
  if exported:
    return export_attention.local_attention(
      *(query, key, value, relative_rows, relative_columns),
      geometry,
      scale,
      window_mask=window_mask,
      block=block,
    )
  single_rows, single_columns = (
    window_mask and size is not None and -(-size // rate) == length
    for size, rate, length in zip(static, geometry.dilation_rate, block, strict=True)
  )
  tiling = HaloTiling(geometry, (height, width), block, (single_rows, single_columns))
  attention = _BlockedAttention(tiling, scale, window_mask)
  inputs = (query, key, value, relative_rows, relative_columns)
  return _differentiable(attention, inputs, recompute)
