"""Masked logits of exported models, which other runtimes may quantize.

A quantized tensor has one range for all of its elements. A mask of -1e9 would leave the logits no
resolution, so masked logits are only as low as the softmax needs.
"""

from __future__ import annotations

import math

import tensorflow as tf

from sasa_tf.ops.checks import static_size

# Relative rounding error of the softmax's dtypes.
_EPSILON = {tf.float32: 2.0**-23, tf.float64: 2.0**-52}


def mask_logits(logits: tf.Tensor, mask: tf.Tensor, attended: int) -> tf.Tensor:
  """Returns logits whose softmax excludes keys.

  The weights of all excluded keys of a query together are below the rounding error of the dtype,
  whatever the logits are, because every logit of an excluded key becomes lower than the query's
  lowest one by a distance that depends on the number of keys alone.

  Args:
    logits: [..., keys], float32 or float64.
    mask: whether a key takes part; broadcast to `logits`.
    attended: the lowest number of keys that take part for any query, at least 1.
  """
  ratio = max(1.0, static_size(logits, -1) / attended)
  distance = math.log(ratio) - math.log(_EPSILON[logits.dtype])
  lowest = tf.reduce_min(logits, axis=-1, keepdims=True)
  return tf.where(mask, logits, lowest - distance)
