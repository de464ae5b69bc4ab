"""Initial values with which the heads of local attention start as the taps of a convolution.

Attention with the logits -strength * |p - o|^2 at the position p of the window attends to the
offset o. A query bias and two features of each relative embedding, -u^2 and u, express these logits
exactly (Cordonnier et al. 2020, arXiv 1911.03584, Sec. 3; d'Ascoli et al. 2021, arXiv 2103.10697,
Sec. 3). The keys of these features start at zero, because the bias would multiply them too.
"""

from __future__ import annotations

import itertools

import tensorflow as tf


def head_offsets(num_heads: int, kernel_size: tuple[int, int]) -> list[tuple[int, int]]:
  """Returns the (row, column) offset of each head.

  The offsets are those of the window from its center outwards; more heads than offsets start again
  from the center.
  """
  rows, columns = (range(-(size // 2), size // 2 + 1) for size in kernel_size)
  offsets = sorted(
    itertools.product(rows, columns),
    key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset),
  )
  return list(itertools.islice(itertools.cycle(offsets), num_heads))


def locality_embeddings(embeddings: tf.Tensor) -> tf.Tensor:
  """Returns row or column embeddings [K, D/2] whose first two features are -u^2 and u.

  u is the position in the window from -1 to 1, and the features have the scale D ** -0.5 of the
  other embeddings.
  """
  size, half = embeddings.shape
  radius = size // 2
  u = tf.cast(tf.range(-radius, radius + 1), embeddings.dtype) / max(1, radius)
  features = tf.stack([-(u**2), u], axis=1) * (2 * half) ** -0.5
  return tf.concat([features, embeddings[:, 2:]], axis=1)


def locality_query_bias(
  num_heads: int, head_dim: int, kernel_size: tuple[int, int], strength: float
) -> tf.Tensor:
  """Returns the query bias [N * D] that focuses each head on its offset.

  With `locality_embeddings`, bias . r = -strength * |p - o|^2 plus a constant of each head, which
  the softmax ignores.
  """
  bias = []
  rest = [0.0] * (head_dim // 2 - 2)
  for offset in head_offsets(num_heads, kernel_size):
    for distance, size in zip(offset, kernel_size, strict=True):
      radius = size // 2
      scale = strength * radius * head_dim**0.5
      bias += [scale * radius, 2 * scale * distance, *rest]
  return tf.constant(bias)


def locality_key_kernel(kernel: tf.Tensor, num_heads: int) -> tf.Tensor:
  """Returns a key kernel [C, N * D] with zeros for the features that the query bias uses."""
  channels, filters = kernel.shape
  head_dim = filters // num_heads
  content = tf.range(head_dim) % (head_dim // 2) >= 2
  heads = tf.reshape(kernel, [channels, num_heads, head_dim])
  return tf.reshape(heads * tf.cast(content, kernel.dtype), [channels, filters])
