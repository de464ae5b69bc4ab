"""Attention of blocks of queries to their tiles of keys, and its gradient, as matrix products.

Logits are [G, tile, queries], with the keys before the queries: reductions over the keys then
operate on vectors of queries, and the products of the backward pass need no large transpose.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from sasa_tf.ops.checks import static_size
from sasa_tf.ops.precision import product
from sasa_tf.ops.reference import MASKED_LOGIT
from sasa_tf.ops.xla_barriers import compiled_for_gpu, fusion_barrier


class Operands(NamedTuple):
  """The operands of attention, or their gradients; None for absent ones.

  Attributes:
    queries: [G, queries, D], scaled; None without keys.
    keys: [G, tile, D], or None if the logits are the bias alone.
    values: [G, tile, D].
    rows: [G, tile rows, queries], the row term of the bias.
    columns: [G, tile columns, queries], the column term of the bias.
    outside_lse: [G, 1, queries], the log-sum-exp of the logits of neighbors outside the tile, whose
      values are zero; None if there are none.
  """

  queries: tf.Tensor | None
  keys: tf.Tensor | None
  values: tf.Tensor
  rows: tf.Tensor
  columns: tf.Tensor
  outside_lse: tf.Tensor | None


def _logits(operands: Operands) -> tf.Tensor:
  """Returns q.k + bias, [G, tile, queries]."""
  rows, columns = operands.rows, operands.columns
  tile, queries = static_size(rows, 1) * static_size(columns, 1), rows.shape[2]
  bias = tf.reshape(rows[:, :, None] + columns[:, None], [-1, tile, queries])
  if operands.keys is None or operands.queries is None:
    return bias
  return product(operands.keys, operands.queries, adjoint_b=True) + bias


def _subtract_max(operands: Operands, logits: tf.Tensor, max_logit: tf.Tensor) -> tf.Tensor:
  """Returns the logits minus their maxima.

  In XLA programs for a GPU the maxima are subtracted from the small row term, and the bias is added
  to the product a second time. XLA computes the product once, and the logits themselves, whose only
  use is the maximum, are not written to memory.
  """
  if not compiled_for_gpu():
    return logits - max_logit
  return _logits(operands._replace(rows=operands.rows - max_logit))


def forward(operands: Operands) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns outputs [G, queries, D] and the log-sum-exp of the logits [G, 1, queries]."""
  logits = _logits(operands)
  max_logit = tf.reduce_max(logits, axis=1, keepdims=True)
  if operands.outside_lse is not None:
    max_logit = tf.maximum(max_logit, operands.outside_lse)
  max_logit = tf.stop_gradient(max_logit)
  # Rounded to the operands' dtype, so that no float32 array of them is written to memory.
  weights = tf.exp(_subtract_max(operands, logits, max_logit))
  weights = fusion_barrier(tf.cast(weights, operands.values.dtype))
  total = tf.reduce_sum(tf.cast(weights, max_logit.dtype), axis=1, keepdims=True)
  if operands.outside_lse is not None:
    total += tf.exp(operands.outside_lse - max_logit)
  # The softmax of a window whose logits are all minus infinity, whatever the rest of the tile has.
  total = tf.where(max_logit < MASKED_LOGIT / 2, tf.constant(math.nan, total.dtype), total)
  outputs = product(operands.values, weights, adjoint_a=True) / total
  return tf.linalg.matrix_transpose(outputs), max_logit + tf.math.log(total)


def gradient_specs(operands: Operands) -> Operands:
  """Returns the specs of the gradients that `backward` returns for these operands."""
  blocks, dtype = operands.values.shape[0], operands.rows.dtype
  specs: list[Any] = [
    x if x is None else tf.TensorSpec([blocks, *x.shape[1:]], x.dtype) for x in operands
  ]
  if operands.queries is not None:
    specs[0] = tf.TensorSpec(specs[0].shape, dtype)
  return Operands(*specs)


def backward(operands: Operands, lse: tf.Tensor, delta: tf.Tensor, upstream: tf.Tensor) -> Operands:
  """Returns the gradients of the operands.

  Args:
    operands: those of `forward`.
    lse: [G, 1, queries], from `forward`.
    delta: [G, 1, queries], the sum over D of output times upstream gradient.
    upstream: [G, queries, D], the gradient of the outputs.

  Returns:
    Gradients of keys and values in the operands' dtype, the others in the softmax's dtype.
  """
  dtype = lse.dtype
  weights = tf.exp(_logits(operands) - lse)
  d_values = product(weights, upstream, rounded=True)
  d_weights = tf.cast(product(operands.values, upstream, adjoint_b=True, rounded=True), dtype)
  # Rounded to the operands' dtype, so that no float32 array of them is written to memory.
  d_logits = tf.cast(weights * (d_weights - delta), upstream.dtype)
  d_queries = d_keys = d_outside_lse = None
  if operands.keys is not None and operands.queries is not None:
    d_queries = tf.linalg.matrix_transpose(product(operands.keys, d_logits, adjoint_a=True))
    d_keys = product(d_logits, operands.queries, rounded=True)
  if operands.outside_lse is not None:
    d_outside_lse = -delta * tf.exp(operands.outside_lse - lse)
  tile_rows, tile_columns = operands.rows.shape[1], operands.columns.shape[1]
  plane = tf.reshape(d_logits, [-1, tile_rows, tile_columns, operands.rows.shape[2]])
  plane = tf.cast(plane, dtype)
  d_rows, d_columns = (fusion_barrier(tf.reduce_sum(plane, axis=axis)) for axis in (2, 1))
  return Operands(d_queries, d_keys, d_values, d_rows, d_columns, d_outside_lse)
