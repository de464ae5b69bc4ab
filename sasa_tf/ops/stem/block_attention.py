"""Self-attention inside of blocks that do not overlap: the attention of the paper's stem."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.checks import as_heads, relative_tables
from sasa_tf.ops.precision import softmax_dtype
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.stem.block_partition import BlockGrid
from sasa_tf.ops.window import int_pair


def _split_heads(images: tf.Tensor, grid: BlockGrid) -> tf.Tensor:
  """[B, H, W, N, D] -> [G, P, N, D] in the dtype of the softmax."""
  heads, width = images.shape[3:]
  blocks = grid.split(tf.reshape(images, [*grid.image, heads * width]))
  blocks = tf.reshape(blocks, [grid.count, grid.places, heads, width])
  return tf.cast(blocks, softmax_dtype(images.dtype))


def between_places(rows: tf.Tensor, columns: tf.Tensor, block: tuple[int, int]) -> tf.Tensor:
  """r_{a-i, b-j} of each pair of places in a block.

  Args:
    rows: [2 * block rows - 1, D/2].
    columns: [2 * block columns - 1, D/2].
    block: (rows, columns) of a block.

  Returns:
    [P, P, D], the query's place before the key's.
  """
  place = tf.range(block[0] * block[1])
  halves = []
  for table, coordinate, length in (
    (rows, place // block[1], block[0]),
    (columns, place % block[1], block[1]),
  ):
    offset = coordinate[None] - coordinate[:, None] + length - 1
    # A product instead of a gather: its gradient is added up in a fixed order.
    halves.append(tf.tensordot(tf.one_hot(offset, 2 * length - 1, dtype=table.dtype), table, 1))
  return tf.concat(halves, axis=-1)


def beyond_image(grid: BlockGrid, dtype: tf.DType) -> tf.Tensor:
  """What keeps places beyond the image out of the softmax, [G, 1, 1, P] by the key's place."""
  inside = grid.split(tf.ones([*grid.image, 1], dtype))  # [G, P, 1]
  return (1.0 - tf.linalg.matrix_transpose(inside)[:, None]) * MASKED_LOGIT


def block_tables(
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  query: tf.Tensor | tf.TensorSpec,
  block: tuple[int, int],
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
  """Checks both embedding tables of a block's offsets; see `relative_tables`."""
  offsets = tuple(2 * length - 1 for length in block)
  return relative_tables(
    relative_rows, relative_columns, query, offsets, source="2 * block_size - 1 ="
  )


def _weights(
  query: tf.Tensor,
  key: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  grid: BlockGrid,
  scale: float,
) -> tf.Tensor:
  """Returns the softmax over each block, [G, N, P, P], the query's place before the key's."""
  queries = _split_heads(query, grid) * scale
  logits = tf.einsum("gpnd,gqnd->gnpq", queries, _split_heads(key, grid))
  if relative_rows is not None:
    between = between_places(relative_rows, relative_columns, grid.block)
    logits += tf.einsum("gpnd,pqd->gnpq", queries, between)
  if grid.is_ragged:
    logits += beyond_image(grid, logits.dtype)
  return tf.nn.softmax(logits)


def _checked(query, key, relative_rows, relative_columns, block_size):
  """Returns query, key, both tables and the grid, checked and converted."""
  block = int_pair("block_size", block_size)
  query = as_heads("query", query)
  key = as_heads("key", key, like=query)
  tables = block_tables(relative_rows, relative_columns, query, block)
  return query, key, *tables, BlockGrid.of(query, block)


def within_block_attention_2d(
  query: tf.Tensor,
  key: tf.Tensor,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: int | tuple[int, int] = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """Attends from each pixel to all pixels of its own block (paper Sec. 3.2, App. A.1).

  `y_ij = sum_ab softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab`, ab over the block that holds
  ij. Blocks do not overlap. B, H and W may be unknown when the graph is built and need not be
  multiples of the block: blocks lie as the windows of a pooling of their size and stride with
  padding "SAME" do, and what lies beyond the image takes no part in the softmax.

  Args:
    query: [B, H, W, N, D].
    key: as `query`.
    value: as `query`.
    relative_rows: [2 * block rows - 1, D/2], one embedding for each row offset a - i from the
      topmost to the lowest; None for attention without positions, as in the paper's stem.
    relative_columns: [2 * block columns - 1, D/2], likewise from the leftmost to the rightmost.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query. The paper has none.

  Returns:
    [B, H, W, N, D] in value's dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes, dtypes or arguments that do not fit together; the message says which.
  """
  query, key, *tables, grid = _checked(query, key, relative_rows, relative_columns, block_size)
  value = as_heads("value", value, like=query)
  heads, width = value.shape[3:]
  with tf.name_scope("within_block_attention_2d"):
    weights = _weights(query, key, *tables, grid, scale)
    attended = tf.einsum("gnpq,gqnd->gpnd", weights, _split_heads(value, grid))
    attended = tf.reshape(attended, [grid.count, grid.places, heads * width])
    images = grid.join(tf.cast(attended, value.dtype))
    return tf.ensure_shape(tf.reshape(images, [*grid.image, heads, width]), value.shape)


def within_block_attention_weights(
  query: tf.Tensor,
  key: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: int | tuple[int, int] = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """Returns the softmax weights of `within_block_attention_2d`, to look at.

  Args:
    query: [B, H, W, N, D].
    key: as `query`.
    relative_rows: [2 * block rows - 1, D/2] or None.
    relative_columns: [2 * block columns - 1, D/2] or None.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query.

  Returns:
    [B, H, W, N, block rows, block columns], the weight that each pixel gives to each place of its
    block; float32, or float64 for float64 inputs. They sum to one; places beyond the image have 0.

  Raises:
    ValueError: shapes, dtypes or arguments that do not fit together; the message says which.
  """
  query, key, *tables, grid = _checked(query, key, relative_rows, relative_columns, block_size)
  heads = query.shape[3]
  with tf.name_scope("within_block_attention_weights"):
    weights = tf.transpose(_weights(query, key, *tables, grid, scale), [0, 2, 1, 3])
    weights = tf.reshape(weights, [grid.count, grid.places, heads * grid.places])
    return tf.reshape(grid.join(weights), [*grid.image, heads, *grid.block])
