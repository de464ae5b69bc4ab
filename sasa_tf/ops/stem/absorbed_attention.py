"""Attention inside of blocks, computed from the pixels themselves instead of their projections.

An image has 3 channels and a head 16. So q.k is cheaper as x A x with A = W_Q W_K^T, a [C, C] for
each head, and the sum of weighted values as one matrix product of the weighted pixels with the
value kernels. Queries, keys and values, each as large as the output, never exist. Compiled kernels
do all of it at once, where there are some.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from sasa_tf.ops.blocked.chunked_map import chunk_count, in_chunks
from sasa_tf.ops.blocked.halo_tiling import sizes
from sasa_tf.ops.checks import require_floating
from sasa_tf.ops.compiled import fused_stem
from sasa_tf.ops.dispatch import may_be_compiled
from sasa_tf.ops.precision import softmax_dtype
from sasa_tf.ops.stem.block_attention import between_places, beyond_image, block_tables
from sasa_tf.ops.stem.block_partition import BlockGrid
from sasa_tf.ops.target_device import target_device
from sasa_tf.ops.window import int_pair
from sasa_tf.ops.xla_barriers import computed_after


def _kernel_refusal(
  pixels: tf.Tensor | tf.TensorSpec, block: tuple[int, int], depth: int, positions: bool
) -> str | None:
  """Returns why the compiled kernels are not used, or None if they are."""
  if positions:
    return "the compiled kernels have no relative positions inside of blocks"
  if tf.executing_eagerly():
    return "without a graph, the gradient of the pixels would be computed for nobody"
  if not may_be_compiled():
    return "exported models use TensorFlow's own operations, or so it was asked for"
  return fused_stem.refusal(pixels, block, depth)


def prefers_pixels(
  inputs: tf.Tensor | tf.TensorSpec,
  depth: int,
  *,
  block_size: int | tuple[int, int] = 4,
  positions: bool = False,
) -> bool:
  """Whether attention of the pixels is faster than of their projections.

  That is so of few channels, by compiled kernels or on a device that is fast at large matrix
  products; otherwise the projections take less than the product that makes up for them.

  Args:
    inputs: [B, H, W, C].
    depth: D.
    block_size: int or (rows, columns), in pixels.
    positions: whether there are relative positions.
  """
  if inputs.shape[3] >= depth:
    return False
  block = int_pair("block_size", block_size)
  return target_device() != "CPU" or _kernel_refusal(inputs, block, depth, positions) is None


def within_block_attention_of_pixels(
  inputs: tf.Tensor,
  query_kernel: tf.Tensor,
  key_kernel: tf.Tensor,
  value_kernels: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  block_size: int | tuple[int, int] = 4,
  scale: float = 1.0,
) -> tf.Tensor:
  """As `within_block_attention_2d` of the projected inputs, for inputs of few channels.

  Args:
    inputs: [B, H, W, C].
    query_kernel: [C, N, D].
    key_kernel: [C, N, D].
    value_kernels: [P, C, N, D], one for each of the P places in a block, row by row.
    relative_rows: [2 * block rows - 1, D/2] or None.
    relative_columns: [2 * block columns - 1, D/2] or None.
    block_size: int or (rows, columns), in pixels.
    scale: multiplies the query.

  Returns:
    [B, H, W, N * D] in inputs' dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes or dtypes that do not fit together; the message says which.
  """
  block = int_pair("block_size", block_size)
  inputs = tf.convert_to_tensor(inputs)
  require_floating("inputs", inputs)
  dtype = softmax_dtype(inputs.dtype)
  query_kernel, key_kernel, value_kernels = (
    tf.cast(tf.convert_to_tensor(kernel), dtype)
    for kernel in (query_kernel, key_kernel, value_kernels)
  )
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
  heads, depth = value_kernels.shape[2:]
  queries_like = tf.TensorSpec([*inputs.shape[:3], heads, depth], inputs.dtype)
  tables = block_tables(relative_rows, relative_columns, queries_like, block)
  with tf.name_scope("within_block_attention_of_pixels"):
    query_kernel *= scale
    similarity = tf.einsum("cnd,end->nce", query_kernel, key_kernel)
    terms = None
    if tables[0] is not None:
      terms = tf.einsum("cnd,pqd->pnqc", query_kernel, between_places(*tables, block))
    tensors = [inputs, similarity, value_kernels, *([] if terms is None else [terms])]
    stock = functools.partial(_attention_of_pixels, block=block)
    if _kernel_refusal(inputs, block, depth, terms is not None) is None:
      attended = fused_stem.attention_of_pixels(*tensors, block, stock)
    elif target_device() == "TPU":
      attended = _in_chunks_of_images(stock, *tensors)
    else:
      attended = stock(*tensors)
    output_size = tf.concat([tf.shape(inputs)[:3], [heads * depth]], axis=0)
    return tf.ensure_shape(tf.reshape(attended, output_size), [*inputs.shape[:3], heads * depth])


def _in_chunks_of_images(
  attend: Callable[..., tf.Tensor], inputs: tf.Tensor, *weights: tf.Tensor
) -> tf.Tensor:
  """Returns `attend(inputs, *weights)`, of some images after the others, nothing of it kept.

  A TPU pads the last dimension of arrays in memory to 128 numbers; weights of 16 places and pixels
  of 3 channels would fill a core's memory many times over.

  Args:
    attend: as `_attention_of_pixels`.
    inputs: [B, H, W, C].
    weights: shared by the images: similarity, [N, C, C], value kernels, [P, C, N, D], and more.
  """
  places, _, heads, depth = weights[1].shape
  batch, height, width, _ = sizes(inputs)
  chunks = chunk_count(batch, height * width * heads * places)

  @tf.custom_gradient
  def compute(inputs, *weights):
    like = tf.TensorSpec([*inputs.shape[:3], heads, depth], inputs.dtype)
    outputs = in_chunks(lambda inputs: attend(inputs, *weights), [inputs], like, chunks)

    def gradient(upstream):
      tensors = computed_after([upstream], [inputs, *weights])

      def of_some(inputs, upstream):
        sources = [inputs, *tensors[1:]]
        with tf.GradientTape() as tape:
          tape.watch(sources)
          result = attend(*sources)
        of_inputs, *of_weights = tape.gradient(result, sources, upstream)
        return [of_inputs, *[g[None] for g in of_weights]]

      like = [tf.TensorSpec(inputs.shape, inputs.dtype)]
      like += [tf.TensorSpec([chunks, *w.shape], w.dtype) for w in weights]
      of_inputs, *of_weights = in_chunks(of_some, [tensors[0], upstream], like, chunks)
      return [of_inputs, *[tf.reduce_sum(g, axis=0) for g in of_weights]]

    return outputs, gradient

  return compute(inputs, *weights)


def _attention_of_pixels(
  inputs: tf.Tensor,
  similarity: tf.Tensor,
  value_kernels: tf.Tensor,
  terms: tf.Tensor | None = None,
  *,
  block: tuple[int, int],
) -> tf.Tensor:
  """[B, H, W, C] -> [B, H, W, N, D], in TensorFlow's operations.

  Args:
    inputs: the pixels.
    similarity: [N, C, C], the query's channel before the key's.
    value_kernels: [P, C, N, D].
    terms: [P, N, P, C], of which each query's pixels make the terms of the positions, or None.
    block: (rows, columns) of a block.
  """
  places, channels, heads, depth = value_kernels.shape
  grid = BlockGrid.of(inputs, block)
  blocks = grid.split(inputs)  # [G, P, C]
  logits = _logits(tf.cast(blocks, similarity.dtype), similarity, terms, grid)
  weights = tf.cast(tf.nn.softmax(logits), inputs.dtype)

  weighted = weights[..., None] * blocks[:, None, None]  # [G, P, N, P, C]
  weighted = tf.reshape(weighted, [grid.count * grid.places, heads * places * channels])
  # One large product with zeros between the heads beats a small one for each.
  kernel = tf.transpose(value_kernels, [2, 0, 1, 3])[..., None, :]  # [N, P, C, 1, D]
  kernel *= tf.eye(heads, dtype=kernel.dtype)[:, None, None, :, None]
  kernel = tf.reshape(kernel, [heads * places * channels, heads * depth])
  attended = tf.matmul(weighted, tf.cast(kernel, inputs.dtype))
  attended = grid.join(tf.reshape(attended, [grid.count, grid.places, heads * depth]))
  return tf.reshape(attended, [*grid.image, heads, depth])


def _logits(
  pixels: tf.Tensor, similarity: tf.Tensor, terms: tf.Tensor | None, grid: BlockGrid
) -> tf.Tensor:
  """Returns [G, P, N, P], the query's place before the key's, of pixels [G, P, C]."""
  queries = tf.einsum("gpc,nce->gpne", pixels, similarity)
  # Sums of C products instead of matrix products, as which they would be too small.
  channels = range(pixels.shape[2])
  logits = tf.add_n([queries[..., None, c] * pixels[:, None, None, :, c] for c in channels])
  if terms is not None:
    logits += tf.add_n([pixels[:, :, None, None, c] * terms[..., c] for c in channels])
  if grid.is_ragged:
    logits += beyond_image(grid, logits.dtype)
  return logits
