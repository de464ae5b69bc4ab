"""The `blocked` implementation: exact local attention as matrix products over blocks of queries.

A block of queries and the tile of keys around it meet in one product. What a window is, where the
image ends and q.r are separable into rows and columns, and so are two small terms of the logits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from sasa_tf.ops.blocked import matmul_attention
from sasa_tf.ops.blocked.block_sizes import block_size
from sasa_tf.ops.blocked.chunked_map import chunk_count, in_chunks
from sasa_tf.ops.blocked.halo_tiling import BlockLayout, sizes
from sasa_tf.ops.blocked.matmul_attention import Operands
from sasa_tf.ops.blocked.separable_bias import block_terms
from sasa_tf.ops.precision import product_dtype, softmax_dtype
from sasa_tf.ops.window import WindowGeometry
from sasa_tf.ops.xla_barriers import computed_after


@dataclasses.dataclass(frozen=True)
class _BlockedAttention:
  """Local attention with its static arguments bound; all methods take the inputs in one order.

  That order is query, key, value, relative_rows, relative_columns, with None for what is absent.
  """

  layout: BlockLayout
  scale: float
  window_mask: bool

  def _queries(self, query: tf.Tensor) -> tf.Tensor:
    """[G, queries, D], scaled, in the dtype of the softmax."""
    queries = tf.cast(self.layout.split_queries(query), softmax_dtype(query.dtype))
    return queries if self.scale == 1.0 else queries * self.scale

  def _operands(self, queries, key, value, rows, columns) -> Operands:
    layout, dtype = self.layout, product_dtype(value.dtype)
    batch, _, _, heads, _ = sizes(value)
    return Operands(
      None if key is None else tf.cast(queries, dtype),
      None if key is None else tf.cast(layout.split_keys(key), dtype),
      tf.cast(layout.split_keys(value), dtype),
      *block_terms(queries, rows, columns, layout, batch * heads, self.window_mask),
    )

  def _image_chunks(self, value: tf.Tensor) -> int:
    batch, _, _, heads, _ = sizes(value)
    return chunk_count(batch, heads * self.layout.blocks * self.layout.logits)

  def _block_chunks(self, operands: Operands) -> int:
    return chunk_count(sizes(operands.values)[0], self.layout.logits)

  def forward(self, query, key, value, rows, columns, chunked=True) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the output [B, H, W, N, D] and the log-sum-exp [B, N * blocks, 1, queries]."""
    chunks = self._image_chunks(value) if chunked else 1
    queries, dtype = math.prod(self.layout.block), softmax_dtype(value.dtype)
    like = None
    if chunks > 1:
      log_sum = [value.shape[0], value.shape[3] * self.layout.blocks, 1, queries]
      like = (tf.TensorSpec(value.shape, value.dtype), tf.TensorSpec(log_sum, dtype))

    def some_images(query, key, value):
      operands = self._operands(self._queries(query), key, value, rows, columns)
      batch, _, _, heads, depth = sizes(value)
      blocks = operands.values.shape[0]
      outputs, log_sum = in_chunks(
        matmul_attention.forward,
        [operands],
        like=[tf.TensorSpec([blocks, *shape], dtype) for shape in ([queries, depth], [1, queries])],
        chunks=self._block_chunks(operands) if chunked else 1,
      )
      log_sum = tf.reshape(log_sum, [batch, heads * self.layout.blocks, 1, queries])
      return tf.cast(self.layout.join_queries(outputs, heads), value.dtype), log_sum

    return in_chunks(some_images, [query, key, value], like, chunks)

  def backward(self, inputs, output, log_sum, upstream) -> list[tf.Tensor | None]:
    """Returns the gradients of the inputs, all recomputed but for output and log-sum-exp."""
    query, key, value, rows, columns = inputs
    chunks = self._image_chunks(value)
    like = [None if x is None else tf.TensorSpec(x.shape, x.dtype) for x in (query, key, value)] + [
      None if x is None else tf.TensorSpec([chunks, *x.shape], x.dtype) for x in (rows, columns)
    ]

    def some_images(query, key, value, output, log_sum, upstream):
      inputs = (query, key, value, rows, columns)
      *maps, row_table, column_table = self._backward(inputs, output, log_sum, upstream)
      tables = [None if x is None else x[None] for x in (row_table, column_table)]
      return [*maps, *tables]

    *maps, row_table, column_table = in_chunks(
      some_images, [query, key, value, output, log_sum, upstream], like, chunks
    )
    tables = [None if x is None else tf.reduce_sum(x, axis=0) for x in (row_table, column_table)]
    return [*maps, *tables]

  def _backward(self, inputs, output, log_sum, upstream) -> list[tf.Tensor | None]:
    """As `backward`, of all images at once."""
    query, key, value, rows, columns = inputs
    layout, heads, dtype = self.layout, value.shape[3], log_sum.dtype
    log_sum = tf.reshape(log_sum, [-1, 1, math.prod(layout.block)])
    queries = self._queries(query)
    with tf.GradientTape() as tape:
      tape.watch([x for x in (queries, rows, columns) if x is not None])
      operands = self._operands(queries, key, value, rows, columns)
    delta = tf.cast(upstream, dtype) * tf.cast(output, dtype)
    delta = layout.split_queries(tf.reduce_sum(delta, axis=-1, keepdims=True))
    upstream = tf.cast(layout.split_queries(upstream), operands.values.dtype)
    gradients = in_chunks(
      matmul_attention.backward,
      [operands, log_sum, tf.linalg.matrix_transpose(delta), upstream],
      like=matmul_attention.gradient_specs(operands),
      chunks=self._block_chunks(operands),
    )
    query_gradients = [] if key is None else [gradients.queries]
    table_gradients = [None, None]
    if rows is not None:
      query_gradient, *table_gradients = tape.gradient(
        _present(operands[3:]), [queries, rows, columns], _present(gradients[3:])
      )
      query_gradients.append(query_gradient)
    return [
      tf.cast(layout.join_queries(tf.add_n(query_gradients) * self.scale, heads), query.dtype),
      None if key is None else tf.cast(layout.fold_keys(gradients.keys, heads), key.dtype),
      tf.cast(layout.fold_keys(gradients.values, heads), value.dtype),
      *table_gradients,
    ]


def _present(tensors: Iterable[tf.Tensor | None]) -> list[tf.Tensor]:
  return [tensor for tensor in tensors if tensor is not None]


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
  again: Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor | None]] | None = None,
) -> tf.Tensor:
  """As `reference.local_attention`.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None.
    value: as `query`.
    relative_rows: [K of the rows, D/2] in the dtype of the softmax, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    window_mask: False shows every query all keys of its block's tile (HaloNet's relaxation). Blocks
      then are of the kernel's size, as they decide the result, and an offset beyond the window has
      the embedding of the window's edge.
    block: (rows, columns) of queries in a block; None for what suits the image.
    again: computes query, key and value anew, after other tensors; None to keep them.

  Returns:
    [B, H, W, N, D] in value's dtype.
  """
  _, height, width, _, _ = sizes(query)
  static = tuple(query.shape[1:3])
  if block is None:
    block = block_size(static, geometry) if window_mask else geometry.kernel_size
  whole = tuple(
    window_mask and size is not None and -(-size // rate) == length
    for size, rate, length in zip(static, geometry.dilation_rate, block, strict=True)
  )
  layout = BlockLayout(geometry, (height, width), tuple(block), whole)
  attention = _BlockedAttention(layout, scale, window_mask)
  optional = (query, key, value, relative_rows, relative_columns)

  def restored(present):
    present = iter(present)
    return [None if argument is None else next(present) for argument in optional]

  def plain_gradient(*arguments):
    *inputs, upstream = arguments
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      output, _ = attention.forward(*restored(inputs), chunked=False)
    return tape.gradient(output, inputs, upstream)

  @tf.custom_gradient
  def attend(*inputs):
    output, log_sum = attention.forward(*restored(inputs))

    @tf.custom_gradient
    def gradient(*arguments):
      *inputs, upstream = arguments
      if again is None:
        kept = restored(computed_after([output, upstream], inputs))
      else:
        kept = [*again([output, upstream]), *restored(inputs)[3:]]
      gradients = _present(attention.backward(kept, output, log_sum, upstream))

      def second_gradient(*upstreams):
        with tf.GradientTape() as tape:
          tape.watch(arguments)
          gradients = plain_gradient(*arguments)
        return tape.gradient(gradients, arguments, upstreams)

      return gradients, second_gradient

    return output, lambda upstream: gradient(*inputs, upstream)

  return attend(*_present(optional))
