"""Global attention: every pixel attends to all pixels. A baseline of the paper."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.autograph import without_autograph
from sasa_tf.ops.checks import as_heads, require_shape, sizes, softmax_dtype


def _checked_tables(
  relative_rows: tf.Tensor | None, relative_columns: tf.Tensor | None, query: tf.Tensor
) -> list[tf.Tensor]:
  """Returns both tables in the softmax's dtype, or [] if there are none."""
  if relative_rows is None and relative_columns is None:
    return []
  if relative_rows is None or relative_columns is None:
    missing = "relative_rows" if relative_rows is None else "relative_columns"
    raise ValueError(
      f"relative_rows and relative_columns are added to each other; {missing} is None. Pass both, "
      "or neither for attention without positions."
    )
  tables = []
  for name, table, size in (
    ("relative_rows", relative_rows, query.shape[1]),
    ("relative_columns", relative_columns, query.shape[2]),
  ):
    table = tf.convert_to_tensor(table)
    expected = [None if size is None else max(2 * size - 1, 0), query.shape[4]]
    if not table.shape.is_compatible_with(expected):
      raise ValueError(
        f"{name} must have one row for each offset in the image and the head's width, {expected} "
        f"for a query of shape {query.shape}; received {table.shape}."
      )
    tables.append(tf.cast(table, softmax_dtype(query.dtype)))
  return tables


def _relative_logits(
  query: tf.Tensor, relative_rows: tf.Tensor, relative_columns: tf.Tensor
) -> tf.Tensor:
  """Returns q_ij . (row_{a-i} + column_{b-j}) for all queries (i, j) and keys (a, b).

  Args:
    query: [B, H, W, N, D].
    relative_rows: [2H - 1, D]; row H - 1 + a - i is for the offset a - i.
    relative_columns: [2W - 1, D] likewise.

  Returns:
    [B * N, H * W, H * W].
  """
  batch, height, width, heads, _ = sizes(query)

  def embeddings(table, size):  # [D, query, key]
    positions = tf.range(size)
    offsets = positions[None, :] - positions[:, None] + size - 1
    # Gather along the last axis, because the gradient along the first is IndexedSlices.
    return tf.gather(tf.transpose(table), offsets, axis=1)

  rows = tf.einsum("bijnd,dia->bnija", query, embeddings(relative_rows, height))
  columns = tf.einsum("bijnd,djc->bnijc", query, embeddings(relative_columns, width))
  # At most four dimensions, which all backends support.
  queries = batch * heads * height * width
  logits = tf.reshape(rows, [queries, height, 1]) + tf.reshape(columns, [queries, 1, width])
  return tf.reshape(logits, [batch * heads, height * width, height * width])


@without_autograph
def global_attention_2d(
  query: tf.Tensor,
  key: tf.Tensor,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  scale: float = 1.0,
) -> tf.Tensor:
  """Multi-head attention of every pixel to all pixels.

  y_ij = sum_ab softmax_ab(scale * q_ij . (k_ab + row_{a-i} + column_{b-j})) v_ab, separately in
  each head. Time and memory grow with the square of the number of pixels: the logits are
  [B, N, H, W, H', W'] in float32.

  Args:
    query: [B, H, W, N, D].
    key: [B, H', W', N, D]; H', W' may differ from H, W without a relative term.
    value: [B, H', W', N, V].
    relative_rows: [2H - 1, D], shared by the heads, or None for no relative term.
    relative_columns: [2W - 1, D], given with `relative_rows`.
    scale: multiplies the query.

  Returns:
    [B, H, W, N, V] in value's dtype. Products and softmax are computed in float32.

  Raises:
    ValueError: shapes or dtypes do not match.
  """
  query, key, value = as_heads("query", query), as_heads("key", key), as_heads("value", value)
  if (
    not key.shape[:4].is_compatible_with(value.shape[:4])
    or query.shape[3:] != key.shape[3:]
    or not query.shape[:1].is_compatible_with(key.shape[:1])
    or not query.dtype == key.dtype == value.dtype
  ):
    raise ValueError(
      "query and key must have the same B, N and D, key and value the same B, H', W' and N, and "
      f"all one dtype; received query {query.shape} of {query.dtype.name}, key {key.shape} of "
      f"{key.dtype.name} and value {value.shape} of {value.dtype.name}."
    )
  tables = _checked_tables(relative_rows, relative_columns, query)
  if tables:  # else tables too small for an image of unknown size would be read out of bounds
    image = [
      None if length is None else (length + 1) // 2 for length in (t.shape[0] for t in tables)
    ]
    query = require_shape(query, [None, *image, None, None])
  dtype = softmax_dtype(query.dtype)

  def split_heads(images):  # [B, H, W, N, D] -> [B * N, H * W, D]
    batch, height, width, heads, channels = sizes(images)
    images = tf.transpose(tf.cast(images, dtype), [0, 3, 1, 2, 4])
    # No size is -1, which could not be inferred for an empty batch.
    return tf.reshape(images, [batch * heads, height * width, channels])

  scaled = tf.cast(query, dtype) * scale
  logits = tf.matmul(split_heads(scaled), split_heads(key), transpose_b=True)  # [B * N, HW, H'W']
  if tables:
    logits += _relative_logits(scaled, *tables)
  attended = tf.matmul(tf.nn.softmax(logits), split_heads(value))  # [B * N, HW, V]
  batch, height, width, heads, _ = sizes(query)
  attended = tf.reshape(attended, [batch, heads, height, width, value.shape[-1]])
  return tf.cast(tf.transpose(attended, [0, 2, 3, 1, 4]), value.dtype)
