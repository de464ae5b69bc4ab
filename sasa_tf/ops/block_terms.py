"""The separable parts of a block's logits: position, window mask and border mask.

Each is a row term plus a column term, so no mask or position tensor of two dimensions exists.
"""

from __future__ import annotations

import math

import tensorflow as tf

from sasa_tf.ops.block_layout import BlockLayout
from sasa_tf.ops.reference import MASKED_LOGIT


def _window_term(
  queries: tf.Tensor | None,
  table: tf.Tensor | None,
  layout: BlockLayout,
  axis: int,
  window_mask: bool,
  dtype: tf.DType,
) -> tf.Tensor:
  """Position and window mask of one axis over the block's reach.

  Args:
    queries: [G, rows, columns, D/2], the half that belongs to the axis; None without positions.
    table: [K, D/2], or None.
    layout: the blocks.
    axis: 0 for the rows, 1 for the columns.
    window_mask: False gives offsets beyond the window the embedding of the window's edge.
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
  if table is None:
    return mask
  # A product with a constant, not a gather, so that its gradient has a fixed order of additions.
  clipped = [[min(max(place, 0), kernel - 1) for place in line] for line in places]
  table = tf.tensordot(tf.one_hot(clipped, kernel, dtype=dtype), table, 1)
  term = tf.einsum("gabd,tad->gtab" if axis == 0 else "gabd,tbd->gtab", queries, table)
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
  halves = [None, None]
  if rows is not None:
    halves = tf.split(tf.reshape(queries, [-1, *layout.block, queries.shape[-1]]), 2, axis=-1)
  full = [
    _window_term(half, table, layout, axis, window_mask, queries.dtype)
    for axis, (half, table) in enumerate(zip(halves, (rows, columns), strict=True))
  ]
  terms = []
  for axis, (term, margin) in enumerate(zip(full, layout.margin, strict=True)):
    term = term[:, margin : margin + layout.tile[axis]]
    if layout.geometry.border == "mask":
      term += _border_term(layout, axis, batch, queries.dtype)
    terms.append(term)
  beyond = _beyond(*full, layout) if layout.geometry.border == "zero" else None
  return *terms, beyond
