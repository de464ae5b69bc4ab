"""The separable parts of a block's logits: position, window mask and border mask.

Each is a row term plus a column term, so no mask or position tensor of two dimensions exists.
"""

from __future__ import annotations

import math

import tensorflow as tf

from sasa_tf.ops.blocked.halo_tiling import BlockLayout
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.target_device import target_device


def _offset_terms(
  queries: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """q.r of every query with every line of the tables: [lines, G, queries], of rows and of columns.

  One product reads the queries once; each table takes its half of the channels.
  """
  half = queries.shape[-1] // 2
  table = tf.concat(
    [tf.pad(rows, [[0, 0], [0, half]]), tf.pad(columns, [[0, 0], [half, 0]])], axis=0
  )
  if target_device() == "CPU":  # which multiplies faster so; others transpose slowly
    terms = tf.transpose(tf.tensordot(queries, table, [[2], [1]]), [2, 0, 1])
  else:
    terms = tf.tensordot(table, queries, [[1], [2]])
  return terms[: rows.shape[0]], terms[rows.shape[0] :]


def _beyond_window(table: tf.Tensor, layout: BlockLayout, axis: int) -> tf.Tensor:
  """Repeats the first and the last line for the offsets that a block has beyond the window."""
  before = layout.block[axis] - 1
  after = layout.reach[axis] - layout.geometry.kernel_size[axis]
  first, last = tf.repeat(table[:1], before, axis=0), tf.repeat(table[-1:], after, axis=0)
  return tf.concat([first, table, last], axis=0)


def _sheared(lines: tf.Tensor, length: int) -> tf.Tensor:
  """[..., A, L] -> [..., A, length]: line a is moved a places on, zeros are around it.

  Lines with a zero more than that, read as if they had none, start one place further on each.
  """
  count, width = lines.shape[-2:]
  padding = [[0, 0]] * (lines.shape.rank - 1) + [[0, length + 1 - width]]
  shape = tf.shape(lines)[:-2]
  flat = tf.reshape(tf.pad(lines, padding), tf.concat([shape, [count * (length + 1)]], axis=0))
  return tf.reshape(flat[..., : count * length], tf.concat([shape, [count, length]], axis=0))


def _window_term(
  offsets: tf.Tensor | None, layout: BlockLayout, axis: int, window_mask: bool, dtype: tf.DType
) -> tf.Tensor:
  """Position and window mask of one axis over the block's reach.

  Args:
    offsets: [lines, G, queries], the terms of that axis; None without positions.
    layout: the blocks.
    axis: 0 for the rows, 1 for the columns.
    window_mask: False if the lines are also those `_beyond_window`.
    dtype: of the term.

  Returns:
    [G, reach, queries].
  """
  kernel, reach, block = layout.geometry.kernel_size[axis], layout.reach[axis], layout.block
  # Of each key of the reach (first) for each query (second): its place in the window.
  places = [[key - query for query in range(block[axis])] for key in range(reach)]
  masked = [[not 0 <= place < kernel and window_mask for place in line] for line in places]
  mask = tf.where(tf.constant(masked), tf.constant(MASKED_LOGIT, dtype), tf.constant(0.0, dtype))
  mask = mask[:, :, None] if axis == 0 else mask[:, None]
  mask = tf.reshape(tf.broadcast_to(mask, [reach, *block]), [1, reach, math.prod(block)])
  if offsets is None:
    return mask
  # Each query sees the table one key further on than the query before.
  lines = tf.reshape(offsets, [offsets.shape[0], -1, *block])
  lines = tf.transpose(lines, [1, 3, 2, 0] if axis == 0 else [1, 2, 3, 0])
  first = 0 if window_mask else block[axis] - 1
  term = _sheared(lines, reach + 2 * first)[..., first : first + reach]
  # Back to [G, reach, rows, columns].
  term = tf.transpose(term, [0, 3, 2, 1] if axis == 0 else [0, 3, 1, 2])
  return tf.reshape(term, [-1, reach, math.prod(block)]) + mask


def _border_term(layout: BlockLayout, axis: int, batch: tf.Tensor | int, dtype: tf.DType):
  """[G, tile, 1]: 0 inside of the image, the mask outside."""
  rate, block = layout.rates[axis], layout.block[axis]
  halo = 0 if layout.whole[axis] else layout.halo[axis]
  first = tf.range(layout.counts[axis])[:, None] * block - halo
  pixel = (first + tf.range(layout.tile[axis])) * rate + tf.range(rate)[:, None, None]
  outside = tf.cast((pixel < 0) | (pixel >= layout.image[axis]), dtype)  # [phases, blocks, tile]
  (row_blocks, column_blocks), (row_rate, column_rate) = layout.counts, layout.rates
  if axis == 0:
    outside = tf.tile(outside[:, None, :, None], [batch, column_rate, 1, column_blocks, 1])
  else:
    outside = tf.tile(outside[None, :, None], [batch * row_rate, 1, row_blocks, 1, 1])
  return tf.reshape(outside, [-1, layout.tile[axis], 1]) * MASKED_LOGIT


def _log_sum(*terms: tf.Tensor) -> tf.Tensor:
  """[G, anything, queries] each -> [G, 1, queries]; all are finite."""
  terms = tf.concat(terms, axis=1)
  top = tf.stop_gradient(tf.reduce_max(terms, axis=1, keepdims=True))
  return top + tf.math.log(tf.reduce_sum(tf.exp(terms - top), axis=1, keepdims=True))


def _beyond(rows: tf.Tensor, columns: tf.Tensor, layout: BlockLayout) -> tf.Tensor | None:
  """Sums the zero neighbours that lie beyond a tile, of which there are some along whole axes.

  They are the loaded rows' columns beyond the tile, and all columns of the rows beyond it.

  Args:
    rows: [G, reach, queries].
    columns: [G, reach, queries].
    layout: the blocks.
  """
  above, left = layout.margin
  if not above and not left:
    return None
  below, right = above + layout.tile[0], left + layout.tile[1]
  parts = []
  if above:
    every_column = _log_sum(columns)
    parts += [rows[:, :above] + every_column, rows[:, below:] + every_column]
  if left:
    parts.append(rows[:, above:below] + _log_sum(columns[:, :left], columns[:, right:]))
  return _log_sum(*parts)


def block_terms(
  queries: tf.Tensor,
  rows: tf.Tensor | None,
  columns: tf.Tensor | None,
  layout: BlockLayout,
  batch: tf.Tensor | int,
  window_mask: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
  """Returns what is added to the q.k of every block: `Operands`' rows, columns and beyond.

  G is 1 where a term is the same for all blocks.

  Args:
    queries: [G, queries, D], scaled, in the dtype of the softmax.
    rows: [K of the rows, D/2], or None.
    columns: [K of the columns, D/2], or None.
    layout: the blocks.
    batch: number of images times heads.
    window_mask: see `local_attention_2d`.
  """
  offsets = (None, None)
  if rows is not None:
    if not window_mask:
      rows, columns = (_beyond_window(x, layout, i) for i, x in enumerate((rows, columns)))
    offsets = _offset_terms(queries, rows, columns)
  full = [
    _window_term(of_axis, layout, axis, window_mask, queries.dtype)
    for axis, of_axis in enumerate(offsets)
  ]
  terms = []
  for axis, (term, margin) in enumerate(zip(full, layout.margin, strict=True)):
    term = term[:, margin : margin + layout.tile[axis]]
    if layout.geometry.border == "mask":
      term += _border_term(layout, axis, batch, queries.dtype)
    terms.append(term)
  beyond = _beyond(*full, layout) if layout.geometry.border == "zero" else None
  return *terms, beyond
