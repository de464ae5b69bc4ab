"""Attention of blocks of queries to their tiles of keys, for exported models.

It equals `matmul_attention.forward`, in operations that other runtimes fuse and quantize well: one
softmax, and masked logits of moderate size.
"""

from __future__ import annotations

import math

import tensorflow as tf

from sasa_tf.ops.blocked.halo_tiling import HaloTiling
from sasa_tf.ops.blocked.separable_bias import outside_image
from sasa_tf.ops.bounded_masks import mask_logits
from sasa_tf.ops.checks import static_size
from sasa_tf.ops.precision import product


def _window(tiling: HaloTiling) -> tf.Tensor:
  """Returns whether each key of a tile is in the window of each query, [1, queries, tile]."""
  rows, columns = (  # [block][tile] of each axis
    [[0 <= key + margin - query < kernel for key in range(tile)] for query in range(block)]
    for kernel, margin, block, tile in zip(
      tiling.geometry.kernel_size, tiling.margin, tiling.block, tiling.tile, strict=True
    )
  )
  window = [
    [row and column for row in row_keys for column in column_keys]
    for row_keys in rows
    for column_keys in columns
  ]
  return tf.constant([window])


def attended_keys(
  tiling: HaloTiling, batch: tf.Tensor | int, window_mask: bool
) -> tf.Tensor | None:
  """Returns whether each key takes part, [G, queries, tile]; None if all do.

  G or the number of queries is 1 if the mask is equal for all.

  Args:
    tiling: the blocks.
    batch: number of images times heads.
    window_mask: see `local_attention_2d`.
  """
  window = _window(tiling) if window_mask else None
  if tiling.geometry.border == "zero":
    return window
  rows, columns = (~outside_image(tiling, axis, batch) for axis in (0, 1))
  inside = rows & tf.linalg.matrix_transpose(columns)  # [G, tile rows, tile columns]
  inside = tf.reshape(inside, [-1, 1, math.prod(tiling.tile)])
  return inside if window is None else inside & window


def forward(
  queries: tf.Tensor | None,
  keys: tf.Tensor | None,
  values: tf.Tensor,
  rows: tf.Tensor,
  columns: tf.Tensor,
  mask: tf.Tensor | None,
  attended: int,
) -> tf.Tensor:
  """Returns the outputs [G, queries, D].

  Args:
    queries: [G, queries, D], scaled; None without keys.
    keys: [G, tile, D], or None if the logits are the bias alone.
    values: [G, tile, D].
    rows: [G, tile rows, queries], q.r of the rows without masks; G may be 1.
    columns: [G, tile columns, queries], likewise.
    mask: of `attended_keys`.
    attended: the lowest number of keys that take part for any query.
  """
  row_term, column_term = (tf.linalg.matrix_transpose(x) for x in (rows, columns))
  tile, count = static_size(rows, 1) * static_size(columns, 1), rows.shape[2]
  bias = row_term[..., None] + column_term[:, :, None]  # [G, queries, tile rows, tile columns]
  logits = tf.reshape(bias, [-1, count, tile])
  if queries is not None and keys is not None:
    logits = product(queries, keys, adjoint_b=True) + logits
  if mask is not None:
    logits = mask_logits(logits, mask, attended)
  return product(tf.cast(tf.nn.softmax(logits), values.dtype), values)
