"""Local self-attention over two-dimensional feature maps: the public functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from sasa_tf.ops import dispatch, reference
from sasa_tf.ops.average_pooling import average_pool_heads
from sasa_tf.ops.checks import as_heads, relative_tables
from sasa_tf.ops.compiled import fused
from sasa_tf.ops.precision import softmax_dtype
from sasa_tf.ops.qkv_packing import as_projection, parts_of_projection, query_of_projection
from sasa_tf.ops.target_device import target_device
from sasa_tf.ops.window import window_geometry

# Of an image whose projections a GPU keeps: in ResNet-50 at 224 pixels groups 3 and 4, 5 % of the
# memory of a training step.
_KEPT_PIXELS = 16 * 16


def _is_kept(query: tf.TensorSpec) -> bool:
  """Returns whether to keep what was projected for the backward pass, even if it can be anew."""
  device, (height, width) = target_device(), query.shape[1:3]
  if device == "GPU":
    return None not in (height, width) and height * width <= _KEPT_PIXELS
  return device == "CPU"  # whose memory is large, and whose products take long


def _require_logits(has_key: bool, relative_rows: tf.Tensor | None) -> None:
  if not has_key and relative_rows is None:
    raise ValueError(
      "attention without keys needs relative_rows and relative_columns, else every logit is "
      "empty; received key=None and no relative tables. Pass the key or both tables."
    )


def _inside_image(pixels: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
  """Returns the pixels as int32, checked against the image when the graph runs."""
  pixels = tf.convert_to_tensor(pixels)
  if not pixels.dtype.is_integer or not pixels.shape.is_compatible_with([None, 2]):
    raise ValueError(
      "pixels must be integers of shape [P, 2], (row, column) of each query to look at; received "
      f"{pixels.dtype.name} of shape {pixels.shape}."
    )
  pixels = tf.cast(pixels, tf.int32)
  size = tf.shape(query)[1:3]
  message = "pixels holds a (row, column) outside of the image"
  with tf.control_dependencies(
    [
      tf.debugging.assert_non_negative(pixels, message=message),
      tf.debugging.assert_less(pixels, size, message=message),
    ]
  ):
    return tf.identity(pixels)


def local_attention_2d(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  kernel_size: int | tuple[int, int] = 7,
  dilation_rate: int | tuple[int, int] = 1,
  border: str = "zero",
  scale: float = 1.0,
  window_mask: bool = True,
  implementation: str = "auto",
) -> tf.Tensor:
  """Attends from each pixel to the window around it (paper Sec. 3.1, Eq. 3).

  `y_ij = sum_ab softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab`, ab over the `kernel_size`
  window centred on ij. B, H and W may be unknown when the graph is built; a window larger than the
  feature map is allowed.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None to attend by position alone (q.r only, paper Table 6).
    value: as `query`.
    relative_rows: [K of the rows, D/2], one embedding for each row offset a - i from the topmost
      to the lowest; None for attention without positions.
    relative_columns: [K of the columns, D/2], likewise from the leftmost to the rightmost.
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: what a neighbour outside of the image is. "zero": a zero key and a zero value, which
      still takes part through q.r. "mask": it takes no part.
    scale: multiplies the query, so both q.k and q.r. The paper has none.
    window_mask: False lets every query of a block see all keys that the block has loaded
      (HaloNet's relaxation, arXiv 2103.12731); only for implementations that work in blocks. Blocks
      then are of the kernel's size, with half a kernel around them, and keys beyond the window
      take the embedding of the window's edge.
    implementation: "auto" or one of `available_implementations()`; all give the same result.
      `use_implementation` and the environment variable SASA_TF_IMPLEMENTATION decide what "auto"
      is; the choice is logged by the standard library's logging, at level INFO.

  Returns:
    [B, H, W, N, D] in value's dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes, dtypes or arguments that do not fit together; the message says which.
  """
  geometry = window_geometry(kernel_size, dilation_rate, border)
  query = as_heads("query", query)
  key = None if key is None else as_heads("key", key, like=query)
  value = as_heads("value", value, like=query)
  rows, columns = relative_tables(relative_rows, relative_columns, query, geometry.kernel_size)
  _require_logits(key is not None, rows)
  request = dispatch.Request(query, geometry, window_mask)
  compute = dispatch.select(implementation, request)
  with tf.name_scope("local_attention_2d"):
    result = compute(query, key, value, rows, columns, geometry, scale)
    return tf.ensure_shape(result, query.shape)


def local_attention_2d_projected(
  projected: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  kernel_size: int | tuple[int, int] = 7,
  dilation_rate: int | tuple[int, int] = 1,
  border: str = "zero",
  scale: float = 1.0,
  implementation: str = "auto",
  pool_size: int = 1,
  again: Callable[[Sequence[tf.Tensor]], tf.Tensor] | None = None,
) -> tf.Tensor:
  """As `local_attention_2d`, of query, key and value as one matrix product makes them.

  The compiled kernels read the parts where they are, and write their gradients likewise; the other
  implementations take them apart.

  Args:
    projected: [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] of query and value
      to attend by position alone.
    relative_rows: [K of the rows, D/2] or None.
    relative_columns: [K of the columns, D/2] or None.
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask".
    scale: multiplies the query.
    implementation: "auto" or one of `available_implementations()`.
    pool_size: in pixels; the outputs are averaged over blocks of pool_size x pool_size, in the
      place of strides (paper Sec. 3.1). The compiled kernels of GPUs take the means' gradient as it
      is.
    again: computes `projected` anew, after the tensors that it is given (see `computed_after`), in
      the backward pass, so that it need not be kept. It must not read variables. "reference" does
      not use it, nor does any implementation on a CPU, nor on a GPU where the image is small.

  Returns:
    [B, ceil(H / pool_size), ceil(W / pool_size), N, D] in the projection's dtype.

  Raises:
    ValueError: shapes, dtypes or arguments that do not fit together; the message says which.
  """
  geometry = window_geometry(kernel_size, dilation_rate, border)
  projected = as_projection(projected)
  query = query_of_projection(projected)
  tables = relative_tables(relative_rows, relative_columns, query, geometry.kernel_size)
  _require_logits(projected.shape[3] == 3, tables[0])
  request = dispatch.Request(query, geometry, window_mask=True)
  compute = dispatch.select(implementation, request)
  if _is_kept(query):
    again = None
  with tf.name_scope("local_attention_2d_projected"):
    if compute is fused.local_attention:
      result = fused.local_attention_of_projection(
        projected, *tables, geometry, scale, again, pool_size
      )
    else:
      parts = parts_of_projection(projected)
      if again is not None and compute is not reference.local_attention:
        compute = functools.partial(compute, again=lambda after: parts_of_projection(again(after)))
      result = average_pool_heads(compute(*parts, *tables, geometry, scale), pool_size)
    sizes = [None if size is None else -(-size // pool_size) for size in query.shape[1:3]]
    return tf.ensure_shape(result, [query.shape[0], *sizes, *query.shape[3:]])


def local_attention_weights(
  query: tf.Tensor,
  key: tf.Tensor | None,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  kernel_size: int | tuple[int, int] = 7,
  dilation_rate: int | tuple[int, int] = 1,
  border: str = "zero",
  scale: float = 1.0,
  pixels: tf.Tensor | None = None,
) -> tf.Tensor:
  """Returns the softmax weights of `local_attention_2d`, to look at.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None for attention by position alone.
    relative_rows: [K of the rows, D/2] or None.
    relative_columns: [K of the columns, D/2] or None.
    kernel_size: odd int, or (rows, columns).
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask".
    scale: multiplies the query.
    pixels: integers [P, 2], the (row, column) of the queries to look at. The windows of no other
      pixel are computed, so that a few pixels of a large image cost little.

  Returns:
    [B, H, W, N, K, K] (window rows, window columns) without `pixels`, [B, P, N, K, K] with them;
    float32, or float64 for float64 inputs. Every window sums to one; with border="zero" the share
    of neighbours outside of the image is part of that sum.

  Raises:
    ValueError: shapes, dtypes or arguments that do not fit together; the message says which.
    tf.errors.InvalidArgumentError: a pixel outside of the image.
  """
  geometry = window_geometry(kernel_size, dilation_rate, border)
  query = as_heads("query", query)
  key = None if key is None else as_heads("key", key, like=query)
  dtype = softmax_dtype(query.dtype)
  rows, columns = relative_tables(relative_rows, relative_columns, query, geometry.kernel_size)
  _require_logits(key is not None, rows)
  with tf.name_scope("local_attention_weights"):
    if pixels is None:
      queries = query
      windows = functools.partial(reference.extract_windows, geometry=geometry)
    else:
      pixels = _inside_image(pixels, query)
      queries = reference.gather_pixels(query, pixels)
      windows = functools.partial(reference.gather_windows, pixels=pixels, geometry=geometry)
    weights = reference.attention_weights(
      tf.cast(queries, dtype) * scale,
      None if key is None else windows(tf.cast(key, dtype)),
      windows(tf.ones_like(query[..., :1, :1], dtype))[..., 0] if border == "mask" else None,
      rows,
      columns,
    )
    weights = tf.linalg.matrix_transpose(weights)  # [..., N, K*K]
    return tf.reshape(weights, tf.concat([tf.shape(weights)[:-1], geometry.kernel_size], axis=0))
