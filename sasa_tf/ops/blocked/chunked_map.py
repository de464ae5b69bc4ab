"""Some images or blocks after the others, so that the logits of only a few exist at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.ops.target_device import target_device

# Logits that exist at a time. On a CPU they stay in its cache, on a TPU in its 128 MB of vector
# memory; a GPU wants to be filled.
_CPU_LOGITS = 2**21
_ACCELERATOR_LOGITS = 2**28
_TPU_LOGITS = 2**22


def chunk_count(parts: int | tf.Tensor, logits: int | tf.Tensor) -> int:
  """Returns into how many equal chunks to cut the images, or the blocks of an image.

  Args:
    parts: their number.
    logits: of one of them. Where either is unknown when the graph is built, there is one chunk.
  """
  if not (isinstance(parts, int) and isinstance(logits, int)):
    return 1
  limits = {"CPU": _CPU_LOGITS, "GPU": _ACCELERATOR_LOGITS, "TPU": _TPU_LOGITS}
  wanted = -(-parts * logits // limits[target_device()])
  if wanted <= 1:
    return 1
  divisors = [n for n in range(1, min(4 * wanted, parts) + 1) if parts % n == 0]
  return next((n for n in divisors if n >= wanted), divisors[-1])


def in_chunks(function: Callable[..., Any], arguments: Any, like: Any, chunks: int) -> Any:
  """Returns `function(*arguments)`, computed for one chunk of the parts after the other.

  Args:
    function: treats each part (an image, or a block) by itself.
    arguments: a nest of tensors [parts, ...], or [1, ...] for what all parts share, and None.
    like: a nest as this returns it, of `tf.TensorSpec`s, and None: [parts, ...], or [chunks, ...]
      for what the function returns as [1, ...], a sum over its parts. Unused where there is one
      chunk. (The converter to LiteRT needs the shapes.)
    chunks: their number, a divisor of the parts.
  """
  if chunks == 1:
    return function(*arguments)
  leaves, results = tf.nest.flatten(arguments), tf.nest.flatten(like)
  parts = max(leaf.shape[0] for leaf in leaves if leaf is not None)
  size = parts // chunks
  flat = target_device() == "TPU"  # which pads the last dimension in memory to 128 numbers

  def stored(shape):
    return [math.prod(shape)] if flat else list(shape)

  def cut(leaf):
    leaf = tf.broadcast_to(leaf, [parts, *leaf.shape[1:]])
    return tf.reshape(leaf, [chunks, size, *stored(leaf.shape[1:])])

  def one_chunk(present):
    present = iter(present)
    restored = [
      None if leaf is None else tf.reshape(next(present), [size, *leaf.shape[1:]])
      for leaf in leaves
    ]
    result = tf.nest.flatten(function(*tf.nest.pack_sequence_as(arguments, restored)))
    return [
      tf.reshape(leaf, [leaf.shape[0], *stored(leaf.shape[1:])])
      for leaf in result
      if leaf is not None
    ]

  computed = tf.map_fn(
    one_chunk,
    [cut(leaf) for leaf in leaves if leaf is not None],
    fn_output_signature=[
      tf.TensorSpec([leaf.shape[0] // chunks, *stored(leaf.shape[1:])], leaf.dtype)
      for leaf in results
      if leaf is not None
    ],
    parallel_iterations=1,
  )
  computed = iter(computed)
  joined = [None if leaf is None else tf.reshape(next(computed), leaf.shape) for leaf in results]
  return tf.nest.pack_sequence_as(like, joined)
