"""Query, key and value side by side in one tensor, as one matrix product makes them."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.checks import require_floating


def as_projection(tensor: tf.Tensor) -> tf.Tensor:
  """Converts to a tensor of known parts, heads and head width, or says what is wrong with it."""
  tensor = tf.convert_to_tensor(tensor)
  shape = tensor.shape
  if shape.rank != 6 or shape[3] not in (2, 3) or None in shape[4:].as_list():
    raise ValueError(
      "projected must have shape [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] "
      "of query and value, with N and D known when the graph is built; received "
      f"{shape}. Split the channels with tf.reshape(x, [B, H, W, 3, N, D])."
    )
  require_floating("projected", tensor)
  return tensor


def query_of_projection(projected: tf.Tensor) -> tf.TensorSpec:
  """Returns shape and dtype of the query, [B, H, W, N, D]."""
  shape = projected.shape
  return tf.TensorSpec([*shape[:3], *shape[4:]], projected.dtype)


def parts_of_projection(projected: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
  """Returns query, key (None without keys) and value, each [B, H, W, N, D]."""
  query, *key, value = tf.unstack(projected, axis=3)
  return query, key[0] if key else None, value
