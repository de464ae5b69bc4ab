"""Maps a function over chunks of images or blocks, to bound the peak memory of the logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.ops.xla_barriers import target_device

# Logits of one chunk. On a CPU they fit into the cache, on a TPU into the 128 MB of vector memory;
# on a GPU they are enough to occupy it.
_CPU_LOGITS = 2**21
_ACCELERATOR_LOGITS = 2**28
_TPU_LOGITS = 2**22


def _limit() -> int:
  limits = {"CPU": _CPU_LOGITS, "GPU": _ACCELERATOR_LOGITS, "TPU": _TPU_LOGITS}
  return limits[target_device()]


def chunk_count(parts: int | tf.Tensor, logits: int | tf.Tensor) -> int:
  """Returns the number of equal chunks to process one after another.

  Args:
    parts: number of images, or of blocks.
    logits: number of logits of one part. If either is unknown when the graph is built, there is one
      chunk.
  """
  if not (isinstance(parts, int) and isinstance(logits, int)):
    return 1
  wanted = -(-parts * logits // _limit())
  if wanted <= 1:
    return 1
  divisors = [n for n in range(1, min(4 * wanted, parts) + 1) if parts % n == 0]
  return next((n for n in divisors if n >= wanted), divisors[-1])


def chunked_map(function: Callable[..., Any], arguments: Any, like: Any, chunks: int) -> Any:
  """Returns `function(*arguments)`, computed one chunk of the parts at a time.

  Args:
    function: processes each part (an image, or a block) independently.
    arguments: a nest of tensors [parts, ...], [1, ...] if shared by all parts, or None.
    like: specs of the result, a nest of `tf.TensorSpec` and None: [parts, ...], or [chunks, ...]
      for sums over the parts, which the function returns as [1, ...]. Not used with one chunk. (The
      LiteRT converter needs static shapes.)
    chunks: number of chunks, a divisor of the number of parts.
  """
  if chunks == 1:
    return function(*arguments)
  leaves, results = tf.nest.flatten(arguments), tf.nest.flatten(like)
  parts = max(leaf.shape[0] for leaf in leaves if leaf is not None)
  size = parts // chunks
  flat = target_device() == "TPU"  # pads the last dimension in memory to 128 elements

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
