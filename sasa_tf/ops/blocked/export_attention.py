"""Local attention as exported models compute it, in operations that every runtime executes fast.

It equals `local_attention` of `blocked`. Small operations and passes over the logits cost more in
an interpreter than arithmetic. So blocks are processed a few at a time, whose logits stay in the
cache, tiles are gathered with all channels of a pixel, and the bias of all logits of a block, q.r
and masks, is one matrix product: of the row and column terms of each query with a constant that
selects the row and the column of each key.

Heads are computed in one of two ways, which `tracing_for_export` selects. They are separated as in
multi-head attention, which some runtimes fuse, or groups of heads share matrix products that are
wide enough for other runtimes: the query of each head is zero in the channels of the other heads,
and of the outputs, which have the channels of all heads, each head's own are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.ops.blocked.chunked_map import chunk_count, chunked_map
from sasa_tf.ops.blocked.gathered_tiles import GatheredTiles, constant
from sasa_tf.ops.bounded_masks import mask_logits
from sasa_tf.ops.checks import (
  Size,
  inferable_sizes,
  reshape_inferring,
  softmax_dtype,
  static_size,
)
from sasa_tf.ops.export_context import exports_for_openvino, is_quantizable, product_columns
from sasa_tf.ops.precision import product, product_dtype
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.window import WindowGeometry

# Logits to compute at once: 2.5 MB in float32. All of 56 x 56 pixels, four times as many, take up
# to 1.5 times as long. Smaller parts gain little, and each adds operations to the graph. With
# joined heads they are slightly faster, and a batch of images takes less memory.
_CACHED_LOGITS = 5 * 2**17
_CACHED_JOINED_LOGITS = 2**18


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
  count, *shape = inferable_sizes(logits)
  images = -1 if isinstance(count, int) and count < 0 else count // tiles.blocks
  split = reshape_inferring(logits, [images, tiles.blocks, *shape])
  return reshape_inferring(function(split), [count, *shape])


def _position_terms(
  tiles: GatheredTiles, queries: tf.Tensor, tables: tf.Tensor, window_mask: bool, masked: bool
) -> tf.Tensor:
  """Returns the row and column terms of q.r, with masks if `masked`, [A, n, N, lines].

  Args:
    tiles: the blocks.
    queries: [A, n, N, D] of A = B * blocks blocks.
    tables: see `_position_tables`.
    window_mask: see `local_attention_2d`.
    masked: whether to add the masks.
  """
  blocks, n, heads, depth = inferable_sizes(queries)
  lines = sum(tiles.tile)
  terms = tf.transpose(reshape_inferring(queries, [blocks, n, heads * depth]), [1, 0, 2])
  terms = reshape_inferring(terms, [n, blocks * heads, depth])
  terms = tf.matmul(terms, tables, transpose_b=True)  # [n, A * N, lines]
  if masked and window_mask:
    dtype = terms.dtype

    def outside_window() -> tf.Tensor:
      window = tf.concat([tiles.in_window(0), tiles.in_window(1)], axis=1)
      return _masked(window, dtype)[:, None]

    terms += constant(outside_window)
  terms = tf.transpose(reshape_inferring(terms, [n, blocks, heads * lines]), [1, 0, 2])
  terms = reshape_inferring(terms, [blocks, n, heads, lines])
  if masked and tiles.geometry.border == "mask":
    inside = tf.concat(tiles.in_image(), axis=1)
    outside = tf.reshape(_masked(inside, terms.dtype), [-1, 1, 1, lines])
    terms = _per_image(terms, tiles, lambda x: x + outside)
  return terms


def _mask(
  tiles: GatheredTiles, logits: tf.Tensor, window_mask: bool, quantizable: bool, joined: bool
) -> tf.Tensor:
  """Returns logits whose softmax excludes the keys that take no part.

  Args:
    tiles: the blocks.
    logits: [A, N, n, t], or [A, n * N, t] if `joined`.
    window_mask: see `local_attention_2d`.
    quantizable: whether to keep the logits moderate.
    joined: the order of the axes.
  """
  mask = attended_keys(tiles, window_mask)
  if mask is None:
    return logits
  shape = inferable_sizes(logits)
  if joined:
    mask = tf.reshape(mask, [-1, mask.shape[2], 1, tiles.keys])
    heads = static_size(logits, 1) // tiles.queries
    logits = reshape_inferring(logits, [shape[0], tiles.queries, heads, tiles.keys])

  def apply(logits: tf.Tensor) -> tf.Tensor:
    if not quantizable:
      return logits + _masked(mask, logits.dtype)
    # An image with a border mask may be smaller than the window.
    attended = tiles.geometry.size if tiles.geometry.border == "zero" else 1
    return mask_logits(logits, mask, attended)

  logits = apply(logits) if mask.shape[0] == 1 else _per_image(logits, tiles, apply)
  return reshape_inferring(logits, shape) if joined else logits


class _Heads:
  """Products of N heads that are separated as in multi-head attention: logits [A, N, n, t]."""

  joined = False

  def logits(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Returns q.k of queries [A, n, N, D] and keys [A, t, N, D]."""
    queries, keys = (tf.transpose(x, [0, 2, 1, 3]) for x in (queries, keys))
    return product(queries, keys, adjoint_b=True)

  def bias(self, terms: tf.Tensor, selector: tf.Tensor) -> tf.Tensor:
    """Returns the bias of terms [A, n, N, lines] and a key selector [lines, t]."""
    flat = tf.transpose(terms, [0, 2, 1, 3])
    if exports_for_openvino():  # which fuses it with the softmax if there is no reshape to a matrix
      return tf.matmul(flat, selector)
    blocks, n, heads, lines = inferable_sizes(terms)
    flat = reshape_inferring(flat, [blocks * heads * n, lines])
    return reshape_inferring(tf.matmul(flat, selector), [blocks, heads, n, selector.shape[1]])

  def outputs(self, weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns [A, n, N, D] of weights like the logits and values [A, t, N, D]."""
    outputs = product(weights, tf.transpose(values, [0, 2, 1, 3]))
    return tf.transpose(outputs, [0, 2, 1, 3])


class _JoinedHeads:
  """Products of all N heads at once: logits [A, n * N, t], because runtimes copy at reshapes."""

  joined = True

  def logits(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Returns q.k of queries [A, n, N, D] and keys [A, t, N, D]."""
    blocks, n, heads, depth = inferable_sizes(queries)
    t = static_size(keys, 1)
    if heads > 1:
      dtype = queries.dtype
      own = constant(lambda: tf.repeat(tf.eye(heads, dtype=dtype), depth, axis=1))  # [N, N * D]
      queries = reshape_inferring(queries, [blocks, n, 1, heads * depth]) * own
    queries = reshape_inferring(queries, [blocks, n * heads, heads * depth])
    keys = reshape_inferring(keys, [blocks, t, heads * depth])
    return product(queries, keys, adjoint_b=True)

  def bias(self, terms: tf.Tensor, selector: tf.Tensor) -> tf.Tensor:
    """Returns the bias of terms [A, n, N, lines] and a key selector [lines, t]."""
    blocks, n, heads, lines = inferable_sizes(terms)
    return tf.matmul(reshape_inferring(terms, [blocks, n * heads, lines]), selector)

  def outputs(self, weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns [A, n, N, N * D] of weights like the logits and values [A, t, N, D]."""
    blocks, t, heads, depth = inferable_sizes(values)
    outputs = product(weights, reshape_inferring(values, [blocks, t, heads * depth]))
    n = static_size(weights, 1) // heads
    return reshape_inferring(outputs, [blocks, n, heads, heads * depth])


def _split_into_blocks(
  images: tf.Tensor, blocks: Size, function: Callable[[tf.Tensor, Size], tf.Tensor]
) -> tf.Tensor:
  """Applies `split_queries` or `split_keys`: [B, pixels, N, D] -> [B * blocks, n or t, N, D]."""
  batch, pixels, number, depth = inferable_sizes(images)
  split = function(reshape_inferring(images, [batch, pixels, number * depth]), batch)
  return reshape_inferring(split, [batch * blocks, split.shape[1], number, depth])


def _of_parts(blocks: tf.Tensor | None, parts: Sequence[GatheredTiles]) -> list[Any]:
  """Splits a tensor [A, ...] of A = B * blocks blocks into those of each part."""
  if blocks is None or len(parts) == 1:
    return [blocks] * len(parts)
  count, *shape = inferable_sizes(blocks)
  numbers = [part.blocks for part in parts]
  if count == sum(numbers):  # TensorFlow copies nothing if it splits the first axis
    return tf.split(blocks, numbers, axis=0)
  images = -1 if isinstance(count, int) and count < 0 else count // sum(numbers)
  split = tf.split(reshape_inferring(blocks, [images, sum(numbers), *shape]), numbers, axis=1)
  return [
    reshape_inferring(part, [images * number, *shape])
    for part, number in zip(split, numbers, strict=True)
  ]


def _attend(
  tiles: GatheredTiles,
  queries: tf.Tensor,
  terms: tf.Tensor | None,
  key: tf.Tensor | None,
  value: tf.Tensor,
  selector: tf.Tensor,
  window_mask: bool,
  heads: _Heads | _JoinedHeads,
) -> tf.Tensor:
  """Returns the outputs of the selected blocks, [B, blocks * n, channels].

  Args:
    tiles: the blocks.
    queries: [B * blocks, n, N, D], scaled, in the softmax's dtype.
    terms: see `_position_terms`, or None.
    key: [B, H * W + 1, N, D] or None.
    value: [B, H * W + 1, N, D].
    selector: see `_key_selector`.
    window_mask: see `local_attention_2d`.
    heads: how to compute the products.
  """
  quantizable = is_quantizable()
  logits: Any = None
  dtype = product_dtype(value.dtype)
  if key is not None:
    keys = tf.cast(_split_into_blocks(key, tiles.blocks, tiles.split_keys), dtype)
    logits = heads.logits(tf.cast(queries, dtype), keys)
  if terms is not None:
    bias = heads.bias(terms, selector)
    logits = bias if logits is None else logits + bias
  if quantizable or terms is None:
    logits = _mask(tiles, logits, window_mask, quantizable, heads.joined)
  values = tf.cast(_split_into_blocks(value, tiles.blocks, tiles.split_keys), dtype)
  outputs = heads.outputs(tf.cast(tf.nn.softmax(logits), dtype), values)
  channels = outputs.shape[2] * outputs.shape[3]
  batch = inferable_sizes(value)[0]
  outputs = reshape_inferring(outputs, [batch, tiles.blocks * tiles.queries, channels])
  return tf.cast(outputs, value.dtype)


def _joined_heads(heads: int, depth: int) -> int:
  """Returns how many heads share a product, a divisor of their number."""
  enough = (n for n in range(1, heads) if heads % n == 0 and n * depth >= product_columns())
  return next(enough, heads)


def _attend_images(
  tiles: GatheredTiles,
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  tables: tf.Tensor | None,
  scale: float,
  window_mask: bool,
) -> tf.Tensor:
  """Returns the output [B, H, W, N, D] of all images at once, some blocks at a time."""
  batch, height, width, number, depth = inferable_sizes(value)
  heads: _Heads | _JoinedHeads = _JoinedHeads() if product_columns() else _Heads()
  joined = _joined_heads(number, depth) if product_columns() else number
  groups = number // joined

  def pixels(images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, N, D] -> [B * groups, H * W, joined heads, D]."""
    images = reshape_inferring(images, [batch, height * width, groups, joined * depth])
    if groups > 1:
      images = tf.transpose(images, [0, 2, 1, 3])
    return reshape_inferring(images, [batch * groups, height * width, joined, depth])

  def padded(images: tf.Tensor) -> tf.Tensor:
    return tf.pad(pixels(images), [[0, 0], [0, 1], [0, 0], [0, 0]])

  query, value = pixels(query), padded(value)
  key = None if key is None else padded(key)

  def queries_and_terms(tiles: GatheredTiles) -> tuple[tf.Tensor, tf.Tensor | None]:
    queries = _split_into_blocks(query, tiles.blocks, tiles.split_queries)
    queries = tf.cast(queries, softmax_dtype(query.dtype))
    if scale != 1.0:
      queries *= scale
    if tables is None:
      return queries, None
    masked = not is_quantizable()
    return queries, _position_terms(tiles, queries, tables, window_mask, masked)

  parts = [tiles]
  if tiles.is_static:
    images = batch if isinstance(batch, int) and batch > 0 else 1
    logits = images * number * tiles.blocks * tiles.queries * tiles.keys
    cached = _CACHED_JOINED_LOGITS if heads.joined else _CACHED_LOGITS
    parts = tiles.parts(min(-(-logits // cached), tiles.blocks))
  selector = _key_selector(tiles, softmax_dtype(query.dtype))
  # Computed at once and split: one large operation uses all threads, those of the parts do not.
  inputs = list(zip(*(_of_parts(x, parts) for x in queries_and_terms(tiles)), strict=True))
  outputs = [
    _attend(part, queries, terms, key, value, selector, window_mask, heads)
    for part, (queries, terms) in zip(parts, inputs, strict=True)
  ]
  output = tf.concat(outputs, axis=1) if len(outputs) > 1 else outputs[0]
  output = tiles.join_queries(output, joined, heads.joined)
  if groups > 1:
    output = reshape_inferring(output, [batch, groups, height * width, joined * depth])
    output = tf.transpose(output, [0, 2, 1, 3])
  return reshape_inferring(output, [batch, height, width, number, depth])


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

  Images whose logits exceed the cache are processed in chunks if the batch size is static.
  """
  _, height, width, heads, _ = inferable_sizes(value)
  # Zero neighbors outside of the image are computed like all others.
  may_be_single = window_mask and geometry.border == "mask"
  single_rows, single_columns = (
    may_be_single and size is not None and -(-size // rate) == length
    for size, rate, length in zip(value.shape[1:3], geometry.dilation_rate, block, strict=True)
  )
  tiles = GatheredTiles(geometry, (height, width), block, (single_rows, single_columns))
  logits = heads * tiles.blocks * tiles.queries * tiles.keys
  tables = None
  if relative_rows is not None and relative_columns is not None:
    tables = _position_tables(tiles, relative_rows, relative_columns, window_mask)

  def attend_images(query, key, value):
    return _attend_images(tiles, query, key, value, tables, scale, window_mask)

  chunks = chunk_count(value.shape[0], logits)
  like = None if chunks == 1 else tf.TensorSpec(value.shape, value.dtype)
  return chunked_map(attend_images, [query, key, value], like, chunks)
