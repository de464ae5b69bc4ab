"""Local attention as exported models compute it, in operations that every runtime executes fast.

It equals `local_attention` of `blocked`. Small operations and passes over the logits cost more in
an interpreter than arithmetic. So tiles are gathered with all channels of a pixel, heads are
separated as in multi-head attention (runtimes fuse this pattern), and the bias of all logits of a
block, q.r and masks, is one matrix product: of the row and column terms of each query with a
constant that selects the row and the column of each key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.ops.blocked.chunked_map import (
  chunk_count,
  chunked_loop,
  chunked_map,
  parts_per_chunk,
)
from sasa_tf.ops.blocked.gathered_tiles import GatheredTiles, constant
from sasa_tf.ops.bounded_masks import mask_logits
from sasa_tf.ops.checks import sizes, softmax_dtype, static_size
from sasa_tf.ops.export_context import is_quantizable, may_loop_over_batch
from sasa_tf.ops.precision import product, product_dtype
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.window import WindowGeometry


def _key_selector(tiles: GatheredTiles, dtype: tf.DType) -> tf.Tensor:
  """Returns 1 at the row and at the column of each key, [tile rows + tile columns, t]."""

  def compute():
    rows, columns = (tf.eye(length, dtype=dtype) for length in tiles.tile)
    selector = [tf.repeat(rows, tiles.tile[1], axis=1), tf.tile(columns, [1, tiles.tile[0]])]
    return tf.concat(selector, axis=0)

  return constant(compute)


def _position_tables(
  tiles: GatheredTiles, rows: tf.Tensor, columns: tf.Tensor, window_mask: bool
) -> tf.Tensor:
  """Returns the embedding of each row and column of the tile, [n, tile rows + tile columns, D].

  It is zero outside of a query's window, or that of the window's edge without `window_mask`.
  """

  def selector():
    parts = []
    for axis in (0, 1):
      kernel, other = (tiles.geometry.kernel_size[i] for i in (axis, 1 - axis))
      offsets = tiles.window_offsets(axis)
      if not window_mask:
        offsets = tf.clip_by_value(offsets, 0, kernel - 1)
      part = tf.one_hot(offsets, kernel, dtype=rows.dtype)  # zero outside of the window
      if axis == 0:
        part = tf.repeat(part, tiles.block[1], axis=0)
      else:
        part = tf.tile(part, [tiles.block[0], 1, 1])
      parts.append(tf.pad(part, [[0, 0], [0, 0], [0, other] if axis == 0 else [other, 0]]))
    joined = tf.concat(parts, axis=1)  # [n, tile rows + tile columns, entries of both tables]
    return tf.reshape(joined, [-1, sum(tiles.geometry.kernel_size)])

  half = static_size(rows, 1)
  table = tf.concat(
    [tf.pad(rows, [[0, 0], [0, half]]), tf.pad(columns, [[0, 0], [half, 0]])], axis=0
  )
  tables = tf.matmul(constant(selector), table)
  return tf.reshape(tables, [tiles.queries, sum(tiles.tile), 2 * half])


def attended_keys(tiles: GatheredTiles, window_mask: bool) -> tf.Tensor | None:
  """Returns whether each key takes part, [1 or blocks, 1, 1 or n, t]; None if all do."""
  window = None
  if window_mask:
    window = constant(lambda: tiles.in_window(0)[:, :, None] & tiles.in_window(1)[:, None])
    window = tf.reshape(window, [1, 1, tiles.queries, tiles.keys])
  if tiles.geometry.border == "zero":
    return window
  rows, columns = tiles.in_image()
  inside = tf.reshape(rows[:, :, None] & columns[:, None], [-1, 1, 1, tiles.keys])
  return inside if window is None else inside & window


def _masked(allowed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """Returns 0 where allowed, and a large negative number elsewhere."""
  return (1.0 - tf.cast(allowed, dtype)) * MASKED_LOGIT


def _per_image(
  logits: tf.Tensor, tiles: GatheredTiles, function: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
  """Applies an elementwise function of [B, blocks, ...] to logits [B * blocks, ...]."""
  count, *shape = sizes(logits)
  split = tf.reshape(logits, [count // tiles.blocks, tiles.blocks, *shape])
  return tf.reshape(function(split), [count, *shape])


def _position_bias(
  tiles: GatheredTiles,
  queries: tf.Tensor,
  rows: tf.Tensor,
  columns: tf.Tensor,
  window_mask: bool,
  masked: bool,
) -> tf.Tensor:
  """Returns q.r of every key, with masks if `masked`, [A, N, n, t].

  Args:
    tiles: the blocks.
    queries: [A, n, N, D] of A = B * blocks blocks.
    rows: [K of the rows, D/2].
    columns: [K of the columns, D/2].
    window_mask: see `local_attention_2d`.
    masked: whether to add the masks.
  """
  blocks, n, heads, depth = sizes(queries)
  tables = _position_tables(tiles, rows, columns, window_mask)
  terms = tf.reshape(tf.transpose(queries, [1, 0, 2, 3]), [n, blocks * heads, depth])
  terms = tf.matmul(terms, tables, transpose_b=True)  # [n, A * N, tile rows + tile columns]
  if masked and window_mask:
    window = constant(lambda: tf.concat([tiles.in_window(0), tiles.in_window(1)], axis=1))
    terms += _masked(window, terms.dtype)[:, None]
  lines = sum(tiles.tile)
  terms = tf.transpose(tf.reshape(terms, [n, blocks, heads, lines]), [1, 2, 0, 3])
  if masked and tiles.geometry.border == "mask":
    inside = tf.concat(tiles.in_image(), axis=1)
    outside = tf.reshape(_masked(inside, terms.dtype), [-1, 1, 1, lines])
    terms = _per_image(terms, tiles, lambda x: x + outside)
  flat = tf.reshape(terms, [blocks * heads * n, lines])
  bias = tf.matmul(flat, _key_selector(tiles, flat.dtype))
  return tf.reshape(bias, [blocks, heads, n, tiles.keys])


def _mask(
  tiles: GatheredTiles, logits: tf.Tensor, window_mask: bool, quantizable: bool
) -> tf.Tensor:
  """Returns logits [A, N, n, t] whose softmax excludes the keys that take no part."""
  mask = attended_keys(tiles, window_mask)
  if mask is None:
    return logits

  def apply(logits: tf.Tensor) -> tf.Tensor:
    if not quantizable:
      return logits + _masked(mask, logits.dtype)
    # An image with a border mask may be smaller than the window.
    attended = tiles.geometry.size if tiles.geometry.border == "zero" else 1
    return mask_logits(logits, mask, attended)

  return apply(logits) if mask.shape[0] == 1 else _per_image(logits, tiles, apply)


def _attend(
  tiles: GatheredTiles,
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  rows: tf.Tensor | None,
  columns: tf.Tensor | None,
  scale: float,
  window_mask: bool,
) -> tf.Tensor:
  """Returns the output [B, H, W, N, D] of all images at once."""
  dtype, quantizable = product_dtype(value.dtype), is_quantizable()
  queries = tf.cast(tiles.split_queries(query), softmax_dtype(query.dtype))
  if scale != 1.0:
    queries *= scale
  logits: Any = None
  if key is not None:
    keys = tf.transpose(tf.cast(tiles.split_keys(key), dtype), [0, 2, 3, 1])
    logits = product(tf.cast(tf.transpose(queries, [0, 2, 1, 3]), dtype), keys)
  positions = rows is not None and columns is not None
  if positions:
    bias = _position_bias(tiles, queries, rows, columns, window_mask, masked=not quantizable)
    logits = bias if logits is None else logits + bias
  if quantizable or not positions:
    logits = _mask(tiles, logits, window_mask, quantizable)
  values = tf.transpose(tf.cast(tiles.split_keys(value), dtype), [0, 2, 1, 3])
  outputs = product(tf.cast(tf.nn.softmax(logits), dtype), values)  # [A, N, n, D]
  outputs = tiles.join_queries(tf.transpose(outputs, [0, 2, 1, 3]), sizes(value)[0])
  return tf.cast(outputs, value.dtype)


def local_attention(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  *,
  window_mask: bool,
  block: tuple[int, int],
) -> tf.Tensor:
  """Computes `blocked.local_attention` without a gradient of its own; the arguments are the same.

  Images whose logits exceed the cache are processed in chunks, if the batch size is static or the
  graph may loop over it.
  """
  batch, height, width, heads, _ = sizes(value)
  # Zero neighbors outside of the image are computed like all others.
  may_be_single = window_mask and geometry.border == "mask"
  single_rows, single_columns = (
    may_be_single and size is not None and -(-size // rate) == length
    for size, rate, length in zip(value.shape[1:3], geometry.dilation_rate, block, strict=True)
  )
  tiles = GatheredTiles(geometry, (height, width), block, (single_rows, single_columns))
  logits = heads * tiles.blocks * tiles.queries * tiles.keys

  def attend_images(query, key, value):
    return _attend(tiles, query, key, value, relative_rows, relative_columns, scale, window_mask)

  if may_loop_over_batch() and value.shape[0] is None:
    return chunked_loop(attend_images, [query, key, value], parts_per_chunk(logits))
  chunks = chunk_count(batch, logits)
  like = None if chunks == 1 else tf.TensorSpec(value.shape, value.dtype)
  return chunked_map(attend_images, [query, key, value], like, chunks)
