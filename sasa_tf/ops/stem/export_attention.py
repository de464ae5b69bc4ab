"""Block attention as exported models compute it, in operations that every runtime executes fast.

It equals `absorbed_attention`: for inputs of few channels, queries, keys and values are never
materialized. Interpreters take longer for many small matrix products and for transposes than for
arithmetic. So all heads of a block share one product with the keys and one with the inputs that are
mixed for the values; the value kernels of all heads form one block-diagonal matrix. Blocks are
processed a few rows at a time, whose logits stay in the cache. If the output is pooled, so are
these rows, and the output of all pixels, which takes most of the memory of a model, never exists.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from sasa_tf.ops.blocked.gathered_tiles import constant
from sasa_tf.ops.checks import (
  inferable_sizes,
  reshape_inferring,
  softmax_dtype,
  static_size,
)
from sasa_tf.ops.stem.block_attention import mask_padding
from sasa_tf.ops.stem.block_partition import BlockPartition

# Logits to compute at once: 1 MB in float32. More take up to 1.4 times as long, fewer add
# operations to the graph and gain little.
_CACHED_LOGITS = 2**18
# Large images have larger parts instead of more operations.
_MAX_PARTS = 32


def _identity(size: int, dtype: tf.DType) -> tf.Tensor:
  """Returns a constant, because not all converters support the operation."""
  return constant(lambda: tf.eye(size, dtype=dtype))


@dataclasses.dataclass(frozen=True)
class StemKernels:
  """The weights of an attention stem, as products with its input.

  Attributes:
    similarity: W_Q W_K^T of each head, scaled, the query's channel before the key's, [N, C, C].
    mixture: the weights of M value kernels at each position in a block, [P, M].
    values: the value kernels, [M, C, N, D].
    positions: products with the input of a query are q.r, the query's position before the key's,
      [P, N, P, C]; None without relative positions.
  """

  similarity: tf.Tensor
  mixture: tf.Tensor
  values: tf.Tensor
  positions: tf.Tensor | None = None

  @property
  def heads(self) -> int:
    """N."""
    return static_size(self.values, 2)

  # The parts of an image share the following tensors.

  @functools.cached_property
  def as_queries(self) -> tf.Tensor:
    """[C, N * C], whose product with inputs are the queries of absorbed projections."""
    channels = static_size(self.values, 1)
    return tf.reshape(tf.transpose(self.similarity, [1, 0, 2]), [channels, self.heads * channels])

  @functools.cached_property
  def position_logits(self) -> tf.Tensor | None:
    """[P * C, P * N * P], whose product with blocks is q.r of all pairs of positions."""
    if self.positions is None:
      return None
    shape: Any = self.positions.shape
    positions, heads, _, channels = shape
    kernel = tf.transpose(self.positions, [0, 3, 1, 2])[:, :, None]  # [P, C, 1, N, P]
    own = _identity(positions, kernel.dtype)[:, None, :, None, None]
    return tf.reshape(kernel * own, [positions * channels, positions * heads * positions])

  @functools.cached_property
  def joined_values(self) -> tf.Tensor:
    """The block-diagonal matrix of the heads' value kernels, [N * M * C, N * D]."""
    shape: Any = self.values.shape
    mixtures, channels, heads, depth = shape
    kernel = tf.transpose(self.values, [2, 0, 1, 3])[..., None, :]  # [N, M, C, 1, D]
    kernel *= _identity(heads, kernel.dtype)[:, None, None, :, None]
    return tf.reshape(kernel, [heads * mixtures * channels, heads * depth])

  @functools.cached_property
  def _channel_repeater(self) -> tf.Tensor:
    """The product with this matrix repeats C channels for each mixture, [C, M * C]."""
    channels, mixtures = static_size(self.values, 1), static_size(self.mixture, 1)
    dtype = self.mixture.dtype
    return constant(lambda: tf.tile(tf.eye(channels, dtype=dtype), [1, mixtures]))

  @functools.cached_property
  def _mixture_of_channels(self) -> tf.Tensor:
    """The mixture weights of each repeated channel, [P, M * C]."""
    return tf.repeat(self.mixture, static_size(self.values, 1), axis=1)

  def mixed_inputs(self, blocks: tf.Tensor) -> tf.Tensor:
    """Returns the inputs times the weights of each mixture, [G, P, M * C] of blocks [G, P, C]."""
    count, positions, channels = inferable_sizes(blocks)
    weights = self._mixture_of_channels
    # A product, because broadcast multiplications of a few channels are slow.
    pixels = tf.matmul(tf.reshape(blocks, [-1, channels]), self._channel_repeater)
    return reshape_inferring(pixels, [count, positions, weights.shape[1]]) * weights


def _attend(partition: BlockPartition, images: tf.Tensor, kernels: StemKernels) -> tf.Tensor:
  """Returns the output of all blocks of images [B, H, W, C], [G, P, N * D]."""
  blocks = tf.cast(partition.split(images), softmax_dtype(images.dtype))  # [G, P, C]
  count, positions, channels = partition.count, partition.positions, static_size(blocks, 2)
  heads = kernels.heads
  queries = tf.matmul(tf.reshape(blocks, [-1, channels]), kernels.as_queries)
  queries = reshape_inferring(queries, [count, positions * heads, channels])
  logits = tf.matmul(queries, blocks, transpose_b=True)  # [G, P * N, P]
  if kernels.position_logits is not None:
    flat = tf.reshape(blocks, [-1, positions * channels])
    bias = tf.matmul(flat, kernels.position_logits)
    logits += reshape_inferring(bias, [count, positions * heads, positions])
  if partition.is_ragged:
    shape = [count, positions, heads, positions]
    logits = mask_padding(reshape_inferring(logits, shape), partition)
    logits = reshape_inferring(logits, [count, positions * heads, positions])
  mixed = tf.matmul(tf.nn.softmax(logits), kernels.mixed_inputs(blocks))  # [G, P * N, M * C]
  joined = kernels.joined_values
  outputs = tf.matmul(tf.reshape(mixed, [-1, joined.shape[0]]), joined)
  return reshape_inferring(outputs, [count, positions, joined.shape[1]])


def _part_count(partition: BlockPartition, heads: int) -> int:
  """Returns the number of equal parts of the block rows of an image to process one by one."""
  rows, columns = partition.counts
  if partition.is_ragged:
    return 1
  logits = rows * columns * partition.positions**2 * heads
  wanted = min(-(-logits // _CACHED_LOGITS), _MAX_PARTS)
  return max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n < 2 * wanted))


def block_attention(
  images: tf.Tensor, kernels: StemKernels, block: tuple[int, int], signs: tf.Tensor | None = None
) -> tf.Tensor:
  """Attends from each pixel to all pixels of its own block.

  Args:
    images: [B, H, W, C].
    kernels: in the softmax's dtype.
    block: (rows, columns) of a block.
    signs: [N * D], None or for each channel whether to pool the blocks by their maximum (1) or
      minimum (-1). H and W are then static multiples of the block.

  Returns:
    [B, H, W, N * D] or, pooled, [B, H / block rows, W / block columns, N * D].
  """

  def attend(images: tf.Tensor) -> tf.Tensor:
    partition = BlockPartition(block, tuple(inferable_sizes(images)[:3]))
    if partition.is_ragged:  # the mask needs all sizes
      partition = BlockPartition.of(images, block)
    outputs = _attend(partition, images, kernels)
    if signs is None:
      return partition.join(tf.cast(outputs, images.dtype))
    pooled = tf.cast(tf.reduce_max(outputs * signs, axis=1) * signs, images.dtype)
    shape = [partition.image[0], *partition.counts, static_size(outputs, 2)]
    return reshape_inferring(pooled, shape)

  parts = _part_count(BlockPartition(block, tuple(inferable_sizes(images)[:3])), kernels.heads)
  if parts == 1:
    return attend(images)
  return tf.concat([attend(part) for part in tf.split(images, parts, axis=1)], axis=1)
