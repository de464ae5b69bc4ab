"""Some blocks after the others, so that the logits of only a few exist at a time."""

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


def chunk_count(blocks: int | tf.Tensor, logits: int) -> int:
  """Returns into how many equal chunks to cut the blocks.

  Args:
    blocks: G; where it is unknown when the graph is built, there is one chunk.
    logits: of one block.
  """
  if not isinstance(blocks, int):
    return 1
  limits = {"CPU": _CPU_LOGITS, "GPU": _ACCELERATOR_LOGITS, "TPU": _TPU_LOGITS}
  wanted = -(-blocks * logits // limits[target_device()])
  if wanted <= 1:
    return 1
  divisors = [n for n in range(1, min(4 * wanted, blocks) + 1) if blocks % n == 0]
  return next((n for n in divisors if n >= wanted), divisors[-1])


def in_chunks(function: Callable[..., Any], arguments: Any, like: Any, chunks: int) -> Any:
  """Returns `function(*arguments)`, computed for one chunk of the blocks after the other.

  Args:
    function: treats each block by itself.
    arguments: a nest of tensors [G, ...], or [1, ...] for what all blocks share, and None.
    like: a nest as the function returns it, of `tf.TensorSpec`s without the axis of blocks, and
      None. (The converter to LiteRT needs the shapes.)
    chunks: their number, a divisor of G.
  """
  if chunks == 1:
    return function(*arguments)
  leaves, results = tf.nest.flatten(arguments), tf.nest.flatten(like)
  blocks = max(leaf.shape[0] for leaf in leaves if leaf is not None)
  size = blocks // chunks
  flat = target_device() == "TPU"  # which pads the last dimension in memory to 128 numbers

  def stored(shape):
    return [math.prod(shape)] if flat else list(shape)

  def cut(leaf):
    leaf = tf.broadcast_to(leaf, [blocks, *leaf.shape[1:]])
    return tf.reshape(leaf, [chunks, size, *stored(leaf.shape[1:])])

  def one_chunk(present):
    present = iter(present)
    restored = [
      None if leaf is None else tf.reshape(next(present), [size, *leaf.shape[1:]])
      for leaf in leaves
    ]
    result = tf.nest.flatten(function(*tf.nest.pack_sequence_as(arguments, restored)))
    return [
      tf.reshape(leaf, [size, *stored(leaf.shape[1:])]) for leaf in result if leaf is not None
    ]

  computed = tf.map_fn(
    one_chunk,
    [cut(leaf) for leaf in leaves if leaf is not None],
    fn_output_signature=[
      tf.TensorSpec([size, *stored(leaf.shape)], leaf.dtype) for leaf in results if leaf is not None
    ],
    parallel_iterations=1,
  )
  computed = iter(computed)
  joined = [
    None if leaf is None else tf.reshape(next(computed), [blocks, *leaf.shape]) for leaf in results
  ]
  return tf.nest.pack_sequence_as(like, joined)
