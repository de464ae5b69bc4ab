"""Self-attention within non-overlapping blocks: the attention of the paper's stem."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.autograph import without_autograph
from sasa_tf.ops.bounded_masks import mask_logits
from sasa_tf.ops.checks import (
  as_heads,
  int_pair,
  relative_tables,
  softmax_dtype,
  static_size,
  with_static_shape,
)
from sasa_tf.ops.export_context import is_tracing_for_export
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.stem.block_partition import BlockPartition
from sasa_tf.ops.types import IntOrPair


def _split_heads(images: tf.Tensor, partition: BlockPartition) -> tf.Tensor:
  """[B, H, W, N, D] -> [G, P, N, D] in the softmax's dtype."""
  heads, width = static_size(images, 3), static_size(images, 4)
  blocks = partition.split(tf.reshape(images, [*partition.image, heads * width]))
  blocks = tf.reshape(blocks, [partition.count, partition.positions, heads, width])
  return tf.cast(blocks, softmax_dtype(images.dtype))


def relative_embeddings(rows: tf.Tensor, columns: tf.Tensor, block: tuple[int, int]) -> tf.Tensor:
  """Returns r_{a-i, b-j} of each pair of positions in a block.

  Args:
    rows: [2 * block rows - 1, D/2].
    columns: [2 * block columns - 1, D/2].
    block: (rows, columns) of a block.

  Returns:
    [P, P, D], the query's position before the key's.
  """
  position = tf.range(block[0] * block[1])
  halves = []
  for table, coordinate, length in (
    (rows, position // block[1], block[0]),
    (columns, position % block[1], block[1]),
  ):
    offset = coordinate[None] - coordinate[:, None] + length - 1
    # A product instead of a gather, so that the gradient is a sum in a fixed order.
    halves.append(tf.tensordot(tf.one_hot(offset, 2 * length - 1, dtype=table.dtype), table, 1))
  return tf.concat(halves, axis=-1)


def mask_padding(logits: tf.Tensor, partition: BlockPartition) -> tf.Tensor:
  """Returns logits [G, any, any, P] whose softmax excludes padding, by the key's position."""
  if not partition.is_ragged:
    return logits
  inside = partition.split(tf.ones([*partition.image, 1], logits.dtype))  # [G, P, 1]
  inside = tf.linalg.matrix_transpose(inside)[:, None]
  if is_tracing_for_export():
    return mask_logits(logits, inside > 0.5, attended=1)
  return tf.where(inside > 0.5, logits, MASKED_LOGIT)


def block_tables(
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  query: tf.Tensor | tf.TensorSpec,
  block: tuple[int, int],
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
  """Checks both tables of embeddings of the offsets in a block, see `relative_tables`."""
  offsets = (2 * block[0] - 1, 2 * block[1] - 1)
  return relative_tables(
    relative_rows, relative_columns, query, offsets, source="2 * block_size - 1 ="
  )


def _weights(
  query: tf.Tensor,
  key: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  partition: BlockPartition,
  scale: float,
) -> tf.Tensor:
  """Returns the softmax weights, [G, N, P, P], the query's position before the key's."""
  queries = _split_heads(query, partition) * scale
  logits = tf.einsum("gpnd,gqnd->gnpq", queries, _split_heads(key, partition))
  if relative_rows is not None and relative_columns is not None:
    embeddings = relative_embeddings(relative_rows, relative_columns, partition.block)
    logits += tf.einsum("gpnd,pqd->gnpq", queries, embeddings)
  return tf.nn.softmax(mask_padding(logits, partition))


def _checked(
  query: tf.Tensor,
  key: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  block_size: IntOrPair,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None, tf.Tensor | None, BlockPartition]:
  """Checks and converts the arguments; returns query, key, both tables and the partition."""
  block = int_pair("block_size", block_size)
  query = as_heads("query", query)
  key = as_heads("key", key, like=query)
  tables = block_tables(relative_rows, relative_columns, query, block)
  return query, key, *tables, BlockPartition.of(query, block)


@without_autograph
def block_attention_2d(
  query: tf.Tensor,
  key: tf.Tensor,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: IntOrPair = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """Attends from each pixel to all pixels of its own block (paper Sec. 3.2, App. A.1).

  `y_ij = sum_ab softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab`, where ab runs over the block
  of ij. Blocks do not overlap. B, H and W may be unknown when the graph is built and need not be
  multiples of the block: blocks are aligned with the windows of a pooling of their size and stride
  with padding "SAME", and padding takes no part in the softmax. If a size is 0, the output has no
  elements and all gradients are zero. A NaN in a key or value makes the outputs of its block NaN.

  Args:
    query: [B, H, W, N, D].
    key: as `query`.
    value: as `query`.
    relative_rows: [2 * block rows - 1, D/2], one embedding for each row offset a - i from top
      to bottom; None for attention without positions, as in the paper's stem.
    relative_columns: [2 * block columns - 1, D/2], likewise from left to right.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query. The paper has none.

  Returns:
    [B, H, W, N, D] in value's dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes, dtypes or arguments do not match.
  """
  query, key, rows, columns, partition = _checked(
    query, key, relative_rows, relative_columns, block_size
  )
  value = as_heads("value", value, like=query)
  heads, width = static_size(value, 3), static_size(value, 4)
  with tf.name_scope("block_attention_2d"):
    weights = _weights(query, key, rows, columns, partition, scale)
    attended = tf.einsum("gnpq,gqnd->gpnd", weights, _split_heads(value, partition))
    attended = tf.reshape(attended, [partition.count, partition.positions, heads * width])
    images = partition.join(tf.cast(attended, value.dtype))
    return with_static_shape(tf.reshape(images, [*partition.image, heads, width]), value.shape)


@without_autograph
def block_attention_weights(
  query: tf.Tensor,
  key: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: IntOrPair = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """Returns the softmax weights of `block_attention_2d`, for inspection and visualization.

  Args:
    query: [B, H, W, N, D].
    key: as `query`.
    relative_rows: [2 * block rows - 1, D/2] or None.
    relative_columns: [2 * block columns - 1, D/2] or None.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query.

  Returns:
    [B, H, W, N, block rows, block columns], the weight of each position in a pixel's block;
    float32, or float64 for float64 inputs. Weights sum to one, and those of padding are 0.

  Raises:
    ValueError: shapes, dtypes or arguments do not match.
  """
  query, key, rows, columns, partition = _checked(
    query, key, relative_rows, relative_columns, block_size
  )
  heads = static_size(query, 3)
  with tf.name_scope("block_attention_weights"):
    weights = tf.transpose(_weights(query, key, rows, columns, partition, scale), [0, 2, 1, 3])
    positions = partition.positions
    weights = tf.reshape(weights, [partition.count, positions, heads * positions])
    return tf.reshape(partition.join(weights), [*partition.image, heads, *partition.block])
