"""Block attention with absorbed projections, for inputs of few channels such as images.

An image has 3 channels and a head of the stem has 16. So q.k is cheaper as x A x with the absorbed
projection A = W_Q W_K^T, [C, C] for each head, and the weighted sum of values as one product of the
weighted inputs with the value kernels. Queries, keys and values, each as large as the output, are
never materialized. Compiled kernels fuse all of it, where they are built.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.blocked.chunked_map import chunk_count, chunked_map
from sasa_tf.ops.checks import (
  int_pair,
  require_floating,
  sizes,
  softmax_dtype,
  static_size,
  with_static_shape,
)
from sasa_tf.ops.compiled import fused_stem
from sasa_tf.ops.derivatives import vector_jacobian_product
from sasa_tf.ops.dispatch import auto_may_use_compiled_kernels
from sasa_tf.ops.stem.block_attention import block_tables, mask_padding, relative_embeddings
from sasa_tf.ops.stem.block_partition import BlockPartition
from sasa_tf.ops.types import IntOrPair
from sasa_tf.ops.xla_barriers import recompute_barrier, target_device


def _unsupported_reason(
  inputs: tf.Tensor | tf.TensorSpec,
  block: tuple[int, int],
  depth: int,
  positions: bool,
  heads: int | None = None,
) -> str | None:
  """Returns why the compiled kernels are not used, or None if they are."""
  if positions:
    return "the compiled kernels have no relative positions within blocks"
  if tf.executing_eagerly():
    return "an eager call would compute the gradient of the inputs even if it is not used"
  if not auto_may_use_compiled_kernels():
    return "the model is being exported, or another implementation was requested"
  return fused_stem.unsupported_reason(inputs, block, depth, heads)


def should_absorb_projections(
  inputs: tf.Tensor | tf.TensorSpec,
  depth: int,
  *,
  block_size: IntOrPair = 4,
  positions: bool = False,
) -> bool:
  """Returns whether absorbing the projections is faster than projecting the inputs.

  It is for few channels, with compiled kernels or on a device with fast large matrix products.
  Otherwise the projections cost less than the larger product that replaces them.

  Args:
    inputs: [B, H, W, C].
    depth: D.
    block_size: int or (rows, columns), in pixels.
    positions: whether there are relative positions.
  """
  if static_size(inputs, 3) >= depth:
    return False
  block = int_pair("block_size", block_size)
  return target_device() != "CPU" or _unsupported_reason(inputs, block, depth, positions) is None


def _check_kernels(
  inputs: tf.Tensor,
  query_kernel: tf.Tensor,
  key_kernel: tf.Tensor,
  value_kernels: tf.Tensor,
  block: tuple[int, int],
) -> None:
  """Raises a ValueError if the shapes do not match."""
  projection = [inputs.shape[3], *query_kernel.shape[1:]]
  for name, kernel, expected in (
    ("query_kernel", query_kernel, projection),
    ("key_kernel", key_kernel, projection),
    ("value_kernels", value_kernels, [block[0] * block[1], *projection]),
  ):
    if kernel.shape != expected:
      raise ValueError(
        f"{name} must have shape {expected} for inputs {inputs.shape}, query_kernel "
        f"{query_kernel.shape} and block_size={block}; received {kernel.shape}."
      )


def block_attention_2d_absorbed(
  inputs: tf.Tensor,
  query_kernel: tf.Tensor,
  key_kernel: tf.Tensor,
  value_kernels: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: IntOrPair = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """`block_attention_2d` of projected inputs, without computing the projections.

  Args:
    inputs: [B, H, W, C].
    query_kernel: [C, N, D].
    key_kernel: [C, N, D].
    value_kernels: [P, C, N, D], one for each of the P positions in a block in row-major order.
    relative_rows: [2 * block rows - 1, D/2] or None.
    relative_columns: [2 * block columns - 1, D/2] or None.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query.

  Returns:
    [B, H, W, N * D] in inputs' dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes or dtypes do not match.
  """
  block = int_pair("block_size", block_size)
  inputs = tf.convert_to_tensor(inputs)
  require_floating("inputs", inputs)
  dtype = softmax_dtype(inputs.dtype)
  query_kernel, key_kernel, value_kernels = (
    tf.cast(tf.convert_to_tensor(kernel), dtype)
    for kernel in (query_kernel, key_kernel, value_kernels)
  )
  _check_kernels(inputs, query_kernel, key_kernel, value_kernels, block)
  heads, depth = static_size(value_kernels, 2), static_size(value_kernels, 3)
  queries_like = tf.TensorSpec([*inputs.shape[:3], heads, depth], inputs.dtype)
  rows, columns = block_tables(relative_rows, relative_columns, queries_like, block)
  with tf.name_scope("block_attention_2d_absorbed"):
    query_kernel *= scale
    similarity = tf.einsum("cnd,end->nce", query_kernel, key_kernel)
    position_kernel = None
    if rows is not None and columns is not None:
      embeddings = relative_embeddings(rows, columns, block)
      position_kernel = tf.einsum("cnd,pqd->pnqc", query_kernel, embeddings)
    weights = [similarity, value_kernels]
    if position_kernel is not None:
      weights.append(position_kernel)
    stock = functools.partial(_attend, block=block)
    if _unsupported_reason(inputs, block, depth, position_kernel is not None, heads) is None:
      attended = fused_stem.block_attention_absorbed(
        inputs, similarity, value_kernels, block, stock
      )
    elif target_device() == "TPU":
      attended = _attend_in_chunks(stock, inputs, *weights)
    else:
      attended = stock(inputs, *weights)
    output = tf.reshape(attended, [*sizes(inputs)[:3], heads * depth])
    return with_static_shape(output, [*inputs.shape[:3], heads * depth])


def _attend_in_chunks(
  attend: Callable[..., tf.Tensor], inputs: tf.Tensor, *weights: tf.Tensor
) -> tf.Tensor:
  """Returns `attend(inputs, *weights)` one chunk of images at a time, saving no intermediates.

  A TPU pads the last dimension of arrays in memory to 128 elements. Softmax weights of 16 positions
  and inputs of 3 channels would exceed a core's memory many times over.

  Args:
    attend: `_attend` with the block bound.
    inputs: [B, H, W, C].
    *weights: shared by the images: similarity [N, C, C], value kernels [P, C, N, D] and, with
      relative positions, the position kernel [P, N, P, C].
  """
  shape: Any = weights[1].shape
  positions, _, heads, depth = shape
  batch, height, width, _ = sizes(inputs)
  chunks = chunk_count(batch, height * width * heads * positions)

  @tf.custom_gradient
  def compute(inputs: Any, *weights: Any) -> Any:
    like = tf.TensorSpec([*inputs.shape[:3], heads, depth], inputs.dtype)
    outputs = chunked_map(lambda inputs: attend(inputs, *weights), [inputs], like, chunks)

    def gradient(upstream: Any) -> Any:
      tensors = recompute_barrier([upstream], [inputs, *weights])

      def chunk_gradients(inputs: Any, upstream: Any) -> Any:
        d_inputs, *d_weights = vector_jacobian_product(attend, [inputs, *tensors[1:]], [upstream])
        return [d_inputs, *[g[None] for g in d_weights]]

      like = [tf.TensorSpec(inputs.shape, inputs.dtype)]
      like += [tf.TensorSpec([chunks, *w.shape], w.dtype) for w in weights]
      d_inputs, *d_weights = chunked_map(chunk_gradients, [tensors[0], upstream], like, chunks)
      return [d_inputs, *[tf.reduce_sum(g, axis=0) for g in d_weights]]

    return outputs, gradient

  if compat.carries_tangents([inputs, *weights]):
    return attend(inputs, *weights)
  return compute(inputs, *weights)


def _attend(
  inputs: tf.Tensor,
  similarity: tf.Tensor,
  value_kernels: tf.Tensor,
  position_kernel: tf.Tensor | None = None,
  *,
  block: tuple[int, int],
) -> tf.Tensor:
  """[B, H, W, C] -> [B, H, W, N, D], in TensorFlow operations.

  Args:
    inputs: [B, H, W, C].
    similarity: W_Q W_K^T of each head, [N, C, C], the query's channel before the key's.
    value_kernels: [P, C, N, D].
    position_kernel: [P, N, P, C], whose product with a query's input is q.r, or None.
    block: (rows, columns) of a block.
  """
  shape: Any = value_kernels.shape
  positions, channels, heads, depth = shape
  partition = BlockPartition.of(inputs, block)
  blocks = partition.split(inputs)  # [G, P, C]
  logits = _logits(tf.cast(blocks, similarity.dtype), similarity, position_kernel, partition)
  weights: Any = tf.cast(tf.nn.softmax(logits), inputs.dtype)

  weighted = weights[..., None] * blocks[:, None, None]  # [G, P, N, P, C]
  weighted = tf.reshape(weighted, [partition.count * positions, heads * positions * channels])
  # One large product with a block-diagonal kernel is faster than a small one for each head.
  kernel: Any = tf.transpose(value_kernels, [2, 0, 1, 3])
  kernel = kernel[..., None, :]  # [N, P, C, 1, D]
  kernel *= tf.eye(heads, dtype=kernel.dtype)[:, None, None, :, None]
  kernel = tf.reshape(kernel, [heads * positions * channels, heads * depth])
  attended = tf.matmul(weighted, tf.cast(kernel, inputs.dtype))
  attended = partition.join(tf.reshape(attended, [partition.count, positions, heads * depth]))
  return tf.reshape(attended, [*partition.image, heads, depth])


def _logits(
  blocks: tf.Tensor,
  similarity: tf.Tensor,
  position_kernel: tf.Tensor | None,
  partition: BlockPartition,
) -> tf.Tensor:
  """Returns logits [G, P, N, P], the query's position before the key's, of blocks [G, P, C]."""
  queries = tf.einsum("gpc,nce->gpne", blocks, similarity)
  # Sums of C products, because matrix products of so few channels would be inefficient.
  channels = range(static_size(blocks, 2))
  logits = tf.add_n([queries[..., None, c] * blocks[:, None, None, :, c] for c in channels])
  if position_kernel is not None:
    kernel: Any = position_kernel
    logits += tf.add_n([blocks[:, :, None, None, c] * kernel[..., c] for c in channels])
  return mask_padding(logits, partition)
