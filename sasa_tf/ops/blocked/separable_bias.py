"""The bias of a block's logits: relative position (q.r), window mask and border mask.

All are separable into a row term plus a column term, so no two-dimensional bias is materialized.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from sasa_tf.ops.blocked.halo_tiling import HaloTiling
from sasa_tf.ops.checks import static_size
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.xla_barriers import target_device


def _offset_logits(
  queries: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns q.r of every query and table entry, [offsets, G, queries], for rows and for columns.

  One product reads the queries once; each table uses its half of the channels.
  """
  half = static_size(queries, -1) // 2
  table = tf.concat(
    [tf.pad(rows, [[0, 0], [0, half]]), tf.pad(columns, [[0, 0], [half, 0]])], axis=0
  )
  if target_device() == "CPU":  # this product is faster; elsewhere the transpose is slow
    logits = tf.transpose(tf.tensordot(queries, table, [[2], [1]]), [2, 0, 1])
  else:
    logits = tf.tensordot(table, queries, [[1], [2]])
  return logits[: rows.shape[0]], logits[rows.shape[0] :]


def _extend_table(table: tf.Tensor, tiling: HaloTiling, axis: int) -> tf.Tensor:
  """Repeats the first and the last entry for offsets of the tile that lie outside the window."""
  before = tiling.block[axis] - 1
  after = tiling.reach[axis] - tiling.geometry.kernel_size[axis]
  first, last = tf.repeat(table[:1], before, axis=0), tf.repeat(table[-1:], after, axis=0)
  return tf.concat([first, table, last], axis=0)


def _skew(lines: tf.Tensor, length: int) -> tf.Tensor:
  """[..., A, L] -> [..., A, length]: shifts line a by a positions, filling with zeros.

  Implemented by padding lines to length + 1 and reshaping the flat array to lines of `length`.
  """
  count, width = static_size(lines, -2), static_size(lines, -1)
  padding = [[0, 0]] * (lines.shape.rank - 1) + [[0, length + 1 - width]]
  shape = tf.shape(lines)[:-2]
  flat: Any = tf.reshape(tf.pad(lines, padding), tf.concat([shape, [count * (length + 1)]], axis=0))
  return tf.reshape(flat[..., : count * length], tf.concat([shape, [count, length]], axis=0))


def _window_bias(
  offset_logits: tf.Tensor | None,
  tiling: HaloTiling,
  axis: int,
  window_mask: bool,
  dtype: tf.DType,
) -> tf.Tensor:
  """Returns q.r of one axis over the block's reach.

  Args:
    offset_logits: [offsets, G, queries], q.r of that axis; None without positions.
    tiling: the blocks.
    axis: 0 for the rows, 1 for the columns.
    window_mask: False if the table was extended by `_extend_table`.
    dtype: dtype of the bias.

  Returns:
    [G, reach, queries], 0 outside of the window.
  """
  reach, block = tiling.reach[axis], tiling.block
  if offset_logits is None:
    return tf.zeros([1, reach, math.prod(block)], dtype)
  # Relative to the previous query, the window of a query is shifted by one key.
  lines = tf.reshape(offset_logits, [offset_logits.shape[0], -1, *block])
  lines = tf.transpose(lines, [1, 3, 2, 0] if axis == 0 else [1, 2, 3, 0])
  first = 0 if window_mask else block[axis] - 1
  bias: Any = _skew(lines, reach + 2 * first)
  bias = bias[..., first : first + reach]
  # Back to [G, reach, rows, columns].
  bias = tf.transpose(bias, [0, 3, 2, 1] if axis == 0 else [0, 3, 1, 2])
  return tf.reshape(bias, [-1, reach, math.prod(block)])


def _window_mask(tiling: HaloTiling, axis: int, dtype: tf.DType) -> tf.Tensor:
  """Returns the window mask of one axis over the block's reach, [1, reach, queries]."""
  kernel, reach, block = tiling.geometry.kernel_size[axis], tiling.reach[axis], tiling.block
  # Position of each key of the reach in the window of each query: [reach][block].
  positions = [[key - query for query in range(block[axis])] for key in range(reach)]
  masked = [[not 0 <= position < kernel for position in p] for p in positions]
  mask = tf.where(tf.constant(masked), tf.constant(MASKED_LOGIT, dtype), tf.constant(0.0, dtype))
  mask = mask[:, :, None] if axis == 0 else mask[:, None]
  return tf.reshape(tf.broadcast_to(mask, [reach, *block]), [1, reach, math.prod(block)])


def outside_image(tiling: HaloTiling, axis: int, batch: tf.Tensor | int) -> tf.Tensor:
  """Returns whether each row (column) of the tiles is outside the image, [G, tile, 1]."""
  rate, block = tiling.rates[axis], tiling.block[axis]
  halo = 0 if tiling.single[axis] else tiling.halo[axis]
  first = tf.range(tiling.counts[axis])[:, None] * block - halo
  pixel = (first + tf.range(tiling.tile[axis])) * rate + tf.range(rate)[:, None, None]
  outside = (pixel < 0) | (pixel >= tiling.image[axis])  # [phases, blocks, tile]
  (row_blocks, column_blocks), (row_rate, column_rate) = tiling.counts, tiling.rates
  if axis == 0:
    multiples: Any = [batch, column_rate, 1, column_blocks, 1]
    outside = tf.tile(outside[:, None, :, None], multiples)
  else:
    multiples = [batch * row_rate, 1, row_blocks, 1, 1]
    outside = tf.tile(outside[None, :, None], multiples)
  return tf.reshape(outside, [-1, tiling.tile[axis], 1])


def _border_mask(
  tiling: HaloTiling, axis: int, batch: tf.Tensor | int, dtype: tf.DType
) -> tf.Tensor:
  """Returns the border mask of one axis over the tile, [G, tile, queries or 1].

  Padded queries see keys outside the image, so that every query of a block has a key.
  """
  outside, block, size = outside_image(tiling, axis, batch), tiling.block, tiling.image[axis]
  if not isinstance(size, int) or size % (block[axis] * tiling.rates[axis]):
    first = 0 if tiling.single[axis] else tiling.halo[axis]
    inside = ~outside[:, first : first + block[axis]]  # the block's queries
    inside = inside if axis == 0 else tf.linalg.matrix_transpose(inside)
    inside = tf.broadcast_to(inside, [tf.shape(inside)[0], *block])
    outside &= tf.reshape(inside, [-1, 1, math.prod(block)])
  return tf.cast(outside, dtype) * MASKED_LOGIT


def _lse(*logits: tf.Tensor) -> tf.Tensor:
  """Returns the log-sum-exp of finite logits [G, any, queries] over axis 1: [G, 1, queries]."""
  joined = tf.concat(logits, axis=1)
  max_logit = tf.stop_gradient(tf.reduce_max(joined, axis=1, keepdims=True))
  return max_logit + tf.math.log(tf.reduce_sum(tf.exp(joined - max_logit), axis=1, keepdims=True))


def _outside_lse(rows: tf.Tensor, columns: tf.Tensor, tiling: HaloTiling) -> tf.Tensor | None:
  """Returns the log-sum-exp of the zero neighbors outside a tile, [G, 1, queries], or None.

  There are some if one block spans an axis, because its tile then has no halo. They are all columns
  of the rows outside the tile, and the outside columns of its rows.

  Args:
    rows: row term over the reach, [G, reach, queries].
    columns: column term over the reach, [G, reach, queries].
    tiling: the blocks.
  """
  above, left = tiling.margin
  if not above and not left:
    return None
  below, right = above + tiling.tile[0], left + tiling.tile[1]
  parts = []
  if above:
    all_columns = _lse(columns)
    parts += [rows[:, :above] + all_columns, rows[:, below:] + all_columns]
  if left:
    parts.append(rows[:, above:below] + _lse(columns[:, :left], columns[:, right:]))
  return _lse(*parts)


def _reach_bias(
  queries: tf.Tensor,
  rows: tf.Tensor | None,
  columns: tf.Tensor | None,
  tiling: HaloTiling,
  window_mask: bool,
) -> list[tf.Tensor]:
  """Returns the row term and the column term of q.r over the reach, each [G, reach, queries]."""
  offset_logits = (None, None)
  if rows is not None and columns is not None:
    if not window_mask:
      rows, columns = (_extend_table(x, tiling, i) for i, x in enumerate((rows, columns)))
    offset_logits = _offset_logits(queries, rows, columns)
  return [
    _window_bias(logits, tiling, axis, window_mask, queries.dtype)
    for axis, logits in enumerate(offset_logits)
  ]


def separable_bias(
  queries: tf.Tensor,
  rows: tf.Tensor | None,
  columns: tf.Tensor | None,
  tiling: HaloTiling,
  batch: tf.Tensor | int,
  window_mask: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
  """Returns `rows`, `columns` and `outside_lse` of `Operands`, which are added to q.k.

  G is 1 if a term is equal in all blocks.

  Args:
    queries: [G, queries, D], scaled, in the softmax's dtype.
    rows: [K of the rows, D/2], or None.
    columns: [K of the columns, D/2], or None.
    tiling: the blocks.
    batch: number of images times heads.
    window_mask: see `local_attention_2d`.
  """
  full = _reach_bias(queries, rows, columns, tiling, window_mask)
  if window_mask:
    full = [term + _window_mask(tiling, axis, term.dtype) for axis, term in enumerate(full)]
  terms = []
  for axis, (term, margin) in enumerate(zip(full, tiling.margin, strict=True)):
    term = term[:, margin : margin + tiling.tile[axis]]
    if tiling.geometry.border == "mask":
      term += _border_mask(tiling, axis, batch, queries.dtype)
    terms.append(term)
  outside_lse = None
  if tiling.geometry.border == "zero":
    outside_lse = _outside_lse(full[0], full[1], tiling)
  row_term, column_term = terms
  return row_term, column_term, outside_lse
