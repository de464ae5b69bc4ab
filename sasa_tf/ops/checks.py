"""Checks of the arguments that all attention functions share."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.precision import softmax_dtype


def require_floating(name: str, tensor: tf.Tensor) -> None:
  """Raises a ValueError unless the tensor is of a floating dtype."""
  if not tensor.dtype.is_floating:
    raise ValueError(f"{name} must be floating point; received {tensor.dtype.name}. Cast it first.")


def as_heads(name: str, tensor: tf.Tensor, like: tf.Tensor | None = None) -> tf.Tensor:
  """Converts to a tensor of known heads and head width, or says what is wrong with it."""
  tensor = tf.convert_to_tensor(tensor)
  expected = "[B, H, W, N, D], with the N heads and their width D known when the graph is built"
  if tensor.shape.rank != 5 or None in tensor.shape[3:].as_list():
    raise ValueError(
      f"{name} must have shape {expected}; received {tensor.shape}. Split the channels with "
      "tf.reshape(x, [B, H, W, N, D])."
    )
  require_floating(name, tensor)
  if like is not None:
    if not tensor.shape.is_compatible_with(like.shape):
      raise ValueError(
        f"query, key and value must have one shape {expected}; received query {like.shape} and "
        f"{name} {tensor.shape}."
      )
    if tensor.dtype != like.dtype:
      raise ValueError(
        f"query, key and value must have one dtype; received query {like.dtype.name} and {name} "
        f"{tensor.dtype.name}. Cast them to the same."
      )
  return tensor


def relative_tables(
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  query: tf.Tensor,
  sizes: tuple[int, int],
  source: str = "kernel_size",
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
  """Checks both embedding tables and casts them to the dtype of the softmax.

  Args:
    relative_rows: [K of the rows, D/2], or None.
    relative_columns: [K of the columns, D/2], or None.
    query: [B, H, W, N, D].
    sizes: K of the rows and of the columns.
    source: what decides the sizes, for the message.

  Returns:
    Both tables; (None, None) where there are none.
  """
  if relative_rows is None and relative_columns is None:
    return None, None
  if relative_rows is None or relative_columns is None:
    missing = "relative_rows" if relative_rows is None else "relative_columns"
    raise ValueError(
      "relative_rows and relative_columns go together, as r is their concatenation (paper "
      f"Sec. 3.1); {missing} is None. Pass both, or neither for attention without positions."
    )
  head_dim = query.shape[4]
  if head_dim % 2:
    raise ValueError(
      "the head width D must be even with relative positions, half of it for the row and half for "
      f"the column (paper Sec. 3.1); received D = {head_dim}. Change the number of heads or "
      "channels, or pass no relative tables."
    )
  tables = []
  for name, table, size in (
    ("relative_rows", relative_rows, sizes[0]),
    ("relative_columns", relative_columns, sizes[1]),
  ):
    table = tf.convert_to_tensor(table)
    if not table.shape.is_compatible_with([size, head_dim // 2]):
      raise ValueError(
        f"{name} must have shape [K, D/2] = {[size, head_dim // 2]} for {source} "
        f"{tuple(sizes)} and heads of width {head_dim}; received {table.shape}."
      )
    tables.append(tf.cast(table, softmax_dtype(query.dtype)))
  return tuple(tables)
