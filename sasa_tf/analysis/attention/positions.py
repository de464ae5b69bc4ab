"""What a layer has learned about relative positions, as images of the size of its window."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf.layers import LocalSelfAttention2DBase


def relative_embeddings(layer: Any) -> np.ndarray | None:
  """Returns the learned embedding of each offset in the window.

  Args:
    layer: a built `LocalSelfAttention2D` or `AttentionStem`.

  Returns:
    float32 [K, K, D]: the first D/2 channels are the row's embedding, the others the column's
    (paper Sec. 3.1). None for layers without relative positions, and for stems.
  """
  if not isinstance(layer, LocalSelfAttention2DBase) or layer.relative_rows is None:
    return None
  rows, columns = (
    tf.cast(tf.convert_to_tensor(table), tf.float32).numpy()
    for table in (layer.relative_rows, layer.relative_columns)
  )
  shape = (len(rows), len(columns), rows.shape[1])
  return np.concatenate(
    [np.broadcast_to(rows[:, None], shape), np.broadcast_to(columns[None], shape)], axis=-1
  )


def position_logits(layer: Any, inputs: tf.Tensor) -> np.ndarray | None:
  """Returns the part q.r of the logits of the mean query: its row term plus its column term.

  It shows which offsets a head prefers whatever the content is.

  Args:
    layer: a built `LocalSelfAttention2D` or `AttentionStem`.
    inputs: [B, H, W, C] of the layer. The mean query is that of all their pixels.

  Returns:
    float32 [N, K, K], or None as in `relative_embeddings`.
  """
  embeddings = relative_embeddings(layer)
  if embeddings is None:
    return None
  # The projection is linear, so that the mean query is the query of the mean input.
  mean = tf.reduce_mean(tf.cast(inputs, tf.float32), axis=(0, 1, 2))
  query = tf.tensordot(mean, tf.cast(tf.convert_to_tensor(layer.query_kernel), tf.float32), 1)
  if layer.query_bias is not None:
    query += tf.cast(tf.convert_to_tensor(layer.query_bias), tf.float32)
  heads = tf.reshape(query, [layer.num_heads, layer.head_dim]).numpy() * layer.scale
  return np.einsum("nd,ijd->nij", heads, embeddings)
