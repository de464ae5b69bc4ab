"""Attention weights of chosen pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf.layers import AttentionStemBase

# Windows are computed for so many pixels at a time, which bounds the gathered keys: 33 MB for
# windows of 7 x 7 and 64 channels in float32.
CHUNK = 2048


def window_weights(layer: Any, inputs: tf.Tensor, pixels: np.ndarray) -> np.ndarray:
  """Returns the softmax weights of the windows of chosen pixels.

  Args:
    layer: `LocalSelfAttention2D` or `AttentionStem`.
    inputs: [B, H, W, C] of the layer.
    pixels: int [P, 2], pixels of the layer's input.

  Returns:
    float32 [B, P, N, K, K]. Windows of a stem are its blocks.
  """
  if isinstance(layer, AttentionStemBase):
    # A pixel has block_size^2 weights in each head, together about as many as the layer has
    # outputs, so that the weights of one image take no more memory than its features.
    images = [
      tf.gather_nd(layer.attention_weights(image[None])[0], pixels).numpy() for image in inputs
    ]
    return np.stack(images).astype(np.float32)
  chunks = [
    layer.attention_weights(inputs, tf.constant(pixels[start : start + CHUNK], tf.int32)).numpy()
    for start in range(0, len(pixels), CHUNK)
  ]
  return np.concatenate(chunks, axis=1).astype(np.float32)
