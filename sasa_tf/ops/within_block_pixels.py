"""Attention inside of blocks, computed from the pixels themselves instead of their projections.

An image has 3 channels and a head 16. So q.k is cheaper as x A x with A = W_Q W_K^T, a [C, C] for
each head, and the sum of weighted values as one matrix product of the weighted pixels with the
value kernels. Queries, keys and values, each as large as the output, never exist.
"""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.arguments import require_floating
from sasa_tf.ops.block_grid import BlockGrid
from sasa_tf.ops.geometry import int_pair
from sasa_tf.ops.precision import softmax_dtype
from sasa_tf.ops.within_block import between_places, beyond_image, block_tables


def within_block_attention_of_pixels(
  inputs: tf.Tensor,
  query_kernel: tf.Tensor,
  key_kernel: tf.Tensor,
  value_kernels: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: int | tuple[int, int] = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """As `within_block_attention_2d` of the projected inputs, for inputs of few channels.

  Args:
    inputs: [B, H, W, C].
    query_kernel: [C, N, D].
    key_kernel: [C, N, D].
    value_kernels: [P, C, N, D], one for each of the P places in a block, row by row.
    relative_rows: [2 * block rows - 1, D/2] or None.
    relative_columns: [2 * block columns - 1, D/2] or None.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query.

  Returns:
    [B, H, W, N * D] in inputs' dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes or dtypes that do not fit together; the message says which.
  """
  block = int_pair("block_size", block_size)
  inputs = tf.convert_to_tensor(inputs)
  require_floating("inputs", inputs)
  dtype = softmax_dtype(inputs.dtype)
  query_kernel, key_kernel, value_kernels = (
    tf.cast(tf.convert_to_tensor(kernel), dtype)
    for kernel in (query_kernel, key_kernel, value_kernels)
  )
  projection = [inputs.shape[3], *query_kernel.shape[1:]]
  for name, kernel, expected in (
    ("query_kernel", query_kernel, projection),
    ("key_kernel", key_kernel, projection),
    ("value_kernels", value_kernels, [block[0] * block[1], *projection]),
  ):
    if kernel.shape != expected:
      raise ValueError(
        f"{name} must have shape {expected} for inputs {inputs.shape}, query_kernel "
        f"{query_kernel.shape} and block_size={block}; received {kernel.shape}."
      )
  places, channels, heads, depth = value_kernels.shape
  queries_like = tf.TensorSpec([*inputs.shape[:3], heads, depth], inputs.dtype)
  tables = block_tables(relative_rows, relative_columns, queries_like, block)
  with tf.name_scope("within_block_attention_of_pixels"):
    grid = BlockGrid.of(inputs, block)
    blocks = grid.split(inputs)  # [G, P, C]
    logits = _logits(tf.cast(blocks, dtype), query_kernel * scale, key_kernel, tables, grid)
    weights = tf.cast(tf.nn.softmax(logits), inputs.dtype)

    weighted = weights[..., None] * blocks[:, None, None]  # [G, P, N, P, C]
    weighted = tf.reshape(weighted, [grid.count * grid.places, heads * places * channels])
    # One large product with zeros between the heads beats a small one for each.
    kernel = tf.transpose(value_kernels, [2, 0, 1, 3])[..., None, :]  # [N, P, C, 1, D]
    kernel *= tf.eye(heads, dtype=dtype)[:, None, None, :, None]
    kernel = tf.reshape(kernel, [heads * places * channels, heads * depth])
    attended = tf.matmul(weighted, tf.cast(kernel, inputs.dtype))
    attended = tf.reshape(attended, [grid.count, grid.places, heads * depth])
    return tf.ensure_shape(grid.join(attended), [*inputs.shape[:3], heads * depth])


def _logits(
  pixels: tf.Tensor,
  query_kernel: tf.Tensor,
  key_kernel: tf.Tensor,
  tables: tuple[tf.Tensor | None, tf.Tensor | None],
  grid: BlockGrid,
) -> tf.Tensor:
  """Returns [G, P, N, P], the query's place before the key's, of pixels [G, P, C]."""
  similarity = tf.einsum("cnd,end->cne", query_kernel, key_kernel)
  queries = tf.tensordot(pixels, similarity, axes=1)  # [G, P, N, C]
  # Sums of C products instead of matrix products, as which they would be too small.
  channels = range(query_kernel.shape[0])
  logits = tf.add_n([queries[..., None, c] * pixels[:, None, None, :, c] for c in channels])
  if tables[0] is not None:
    between = between_places(*tables, grid.block)
    terms = tf.einsum("cnd,pqd->pnqc", query_kernel, between)
    logits += tf.add_n([pixels[:, :, None, None, c] * terms[..., c] for c in channels])
  if grid.is_ragged:
    logits += beyond_image(grid, logits.dtype)
  return logits
