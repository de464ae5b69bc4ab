"""Attention of blocks of queries to their tiles of keys, and its gradient, as matrix products.

Logits lie with the keys before the queries, [G, tile, queries]: maxima and sums over the keys then
run over whole vectors of queries, and the products of the backward pass need no large transpose.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from sasa_tf.ops.fusion import fused_for_gpu, not_fused
from sasa_tf.ops.precision import product


class Operands(NamedTuple):
  """What attention is computed from, or the gradients of it; None is for what takes no part.

  Attributes:
    queries: [G, queries, D], scaled; None without keys.
    keys: [G, tile, D], or None to attend by the terms alone.
    values: [G, tile, D].
    rows: [G, tile rows, queries], the row term of the logits.
    columns: [G, tile columns, queries], the column term.
    beyond: [G, 1, queries], the log-sum-exp of the logits of neighbours that have zero values and
      are not in the tile; None where there are none.
  """

  queries: tf.Tensor | None
  keys: tf.Tensor | None
  values: tf.Tensor
  rows: tf.Tensor
  columns: tf.Tensor
  beyond: tf.Tensor | None


def _logits(operands: Operands) -> tf.Tensor:
  """[G, tile, queries]."""
  rows, columns = operands.rows, operands.columns
  tile, queries = rows.shape[1] * columns.shape[1], rows.shape[2]
  terms = tf.reshape(rows[:, :, None] + columns[:, None], [-1, tile, queries])
  if operands.keys is None:
    return terms
  return product(operands.keys, operands.queries, adjoint_b=True) + terms


def _below(operands: Operands, logits: tf.Tensor, top: tf.Tensor) -> tf.Tensor:
  """The logits minus their maxima.

  In XLA's programs for a GPU the maxima are taken of the row terms, which are few, and all terms
  are added anew to the product, which XLA does not compute twice: what the maxima are of is then of
  no use any more, and not written to memory.
  """
  if not fused_for_gpu():
    return logits - top
  return _logits(operands._replace(rows=operands.rows - top))


def forward(operands: Operands) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns outputs [G, queries, D] and the log-sum-exp of the logits [G, 1, queries]."""
  logits = _logits(operands)
  top = tf.reduce_max(logits, axis=1, keepdims=True)
  if operands.beyond is not None:
    top = tf.maximum(top, operands.beyond)
  top = tf.stop_gradient(top)
  # Rounded as the product takes them, so that no single-precision array goes through memory.
  weights = tf.exp(_below(operands, logits, top))
  weights = not_fused(tf.cast(weights, operands.values.dtype))
  total = tf.reduce_sum(tf.cast(weights, top.dtype), axis=1, keepdims=True)
  if operands.beyond is not None:
    total += tf.exp(operands.beyond - top)
  outputs = product(operands.values, weights, adjoint_a=True) / total
  return tf.linalg.matrix_transpose(outputs), top + tf.math.log(total)


def gradient_specs(operands: Operands) -> Operands:
  """Returns the specs of what `backward` returns for these operands."""
  blocks, dtype = operands.values.shape[0], operands.rows.dtype
  specs = [x if x is None else tf.TensorSpec([blocks, *x.shape[1:]], x.dtype) for x in operands]
  if operands.queries is not None:
    specs[0] = tf.TensorSpec(specs[0].shape, dtype)
  return Operands(*specs)


def backward(
  operands: Operands, log_sum: tf.Tensor, delta: tf.Tensor, upstream: tf.Tensor
) -> Operands:
  """Returns the gradients of the operands.

  Args:
    operands: those of `forward`.
    log_sum: [G, 1, queries], from `forward`.
    delta: [G, 1, queries], the sum over D of outputs times upstream: what the gradient of a query's
      logits would be for zero values.
    upstream: [G, queries, D], the gradient of the outputs.

  Returns:
    Those of keys and values in the dtype of the operands, the others in that of the softmax.
  """
  dtype = log_sum.dtype
  weights = tf.exp(_logits(operands) - log_sum)
  values = product(weights, upstream, rounded=True)
  slopes = tf.cast(product(operands.values, upstream, adjoint_b=True, rounded=True), dtype)
  # Rounded as the products take it, so that no single-precision array of them goes through memory.
  logits = tf.cast(weights * (slopes - delta), upstream.dtype)
  queries = keys = beyond = None
  if operands.keys is not None:
    queries = tf.linalg.matrix_transpose(product(operands.keys, logits, adjoint_a=True))
    keys = product(logits, operands.queries, rounded=True)
  if operands.beyond is not None:
    beyond = -delta * tf.exp(operands.beyond - log_sum)
  tile_rows, tile_columns = operands.rows.shape[1], operands.columns.shape[1]
  plane = tf.reshape(logits, [-1, tile_rows, tile_columns, operands.rows.shape[2]])
  plane = tf.cast(plane, dtype)
  rows, columns = (not_fused(tf.reduce_sum(plane, axis=axis)) for axis in (2, 1))
  return Operands(queries, keys, values, rows, columns, beyond)
