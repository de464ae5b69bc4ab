"""Local attention of query, key and value: the public functions."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from sasa_tf.ops import dispatch, reference
from sasa_tf.ops.autograph import without_autograph
from sasa_tf.ops.checks import (
  as_heads,
  is_empty,
  relative_tables,
  require_logits,
  softmax_dtype,
  window_geometry,
  with_static_shape,
  within_image,
)
from sasa_tf.ops.empty import empty_output
from sasa_tf.ops.types import Border, ImplementationName, IntOrPair


def _checked_pixels(pixels: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
  """Returns the pixels as int32, compared with the image's size when the graph runs."""
  pixels = tf.convert_to_tensor(pixels)
  if not pixels.dtype.is_integer or not pixels.shape.is_compatible_with([None, 2]):
    raise ValueError(
      "pixels must be integers of shape [P, 2], the (row, column) of each query; received "
      f"{pixels.dtype.name} of shape {pixels.shape}."
    )
  pixels = tf.cast(pixels, tf.int32)
  size = tf.shape(query)[1:3]
  message = "pixels holds a (row, column) outside the image"
  with tf.control_dependencies(
    [
      tf.debugging.assert_non_negative(pixels, message=message),
      tf.debugging.assert_less(pixels, size, message=message),
    ]
  ):
    return tf.identity(pixels)


@without_autograph
def local_attention_2d(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  kernel_size: IntOrPair = 7,
  dilation_rate: IntOrPair = 1,
  border: Border = "zero",
  scale: float = 1.0,
  window_mask: bool = True,
  implementation: ImplementationName = "auto",
) -> tf.Tensor:
  """Attends from each pixel to the window around it (paper Sec. 3.1, Eq. 3).

  `y_ij = sum_ab softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) v_ab`, where ab runs over the
  `kernel_size` window centered on ij. B, H and W may be unknown when the graph is built. The window
  may be larger than the feature map. If a size is 0, the output has no elements and all gradients
  are zero.

  NaN and infinity are never hidden: output and gradients are non-finite wherever those of
  "reference" are. There and in the CPU kernels of "fused", a NaN in a key or value makes exactly
  the outputs of the queries NaN whose window holds it. "blocked" and the CUDA kernels multiply
  whole tiles, so it may reach the other queries of the tile.
  One exception: with border="mask", "blocked" may hide an infinite entry of a position table.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None to attend by position alone (q.r only, paper Table 6).
    value: as `query`.
    relative_rows: [K of the rows, D/2], one embedding for each row offset a - i from top to bottom;
      None for attention without positions.
    relative_columns: [K of the columns, D/2], likewise from left to right.
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: how neighbors outside the image are treated. "zero": their key and value are zero, and
      they still take part in the softmax through q.r. "mask": they take no part.
    scale: multiplies the query. The paper has none.
    window_mask: False lets every query of a block attend to all keys that the block loads, its halo
      included (HaloNet's relaxation, arXiv 2103.12731). Supported by "blocked" only. Blocks then
      have the size of the kernel, and keys outside the window use the embedding of its edge.
    implementation: "auto" or one of `available_implementations()`; all give the same result.
      `use_implementation` and the environment variable SASA_TF_IMPLEMENTATION override "auto". The
      selection is logged at level INFO.

  Returns:
    [B, H, W, N, D] in value's dtype. Logits and softmax are computed in float32 (float64 for
    float64 inputs).

  Raises:
    ValueError: shapes, dtypes or arguments do not match, or the implementation does not support
      them.
    tf.errors.InvalidArgumentError: sizes that are unknown when the graph is built do not match.
    NotImplementedError: forward-mode differentiation of a `tf.function` from outside of it.
  """
  geometry = window_geometry(kernel_size, dilation_rate, border)
  query = as_heads("query", query)
  geometry = within_image(geometry, *query.shape[1:3])
  key = None if key is None else as_heads("key", key, like=query)
  value = as_heads("value", value, like=query)
  rows, columns = relative_tables(relative_rows, relative_columns, query, geometry.kernel_size)
  require_logits(key is not None, rows)
  request = dispatch.AttentionRequest(query, geometry, window_mask)
  selected = dispatch.select(implementation, request)
  if is_empty(query):
    return empty_output(value, (query, key, rows, columns))
  with tf.name_scope("local_attention_2d"):
    output = selected.attend(
      query, key, value, rows, columns, geometry, scale, window_mask=window_mask
    )
    return with_static_shape(output, query.shape)


@without_autograph
def local_attention_weights(
  query: tf.Tensor,
  key: tf.Tensor | None,
  relative_rows: tf.Tensor | None = None,
  relative_columns: tf.Tensor | None = None,
  *,
  kernel_size: IntOrPair = 7,
  dilation_rate: IntOrPair = 1,
  border: Border = "zero",
  scale: float = 1.0,
  pixels: tf.Tensor | None = None,
) -> tf.Tensor:
  """Returns the softmax weights of `local_attention_2d`, for inspection and visualization.

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None for attention by position alone.
    relative_rows: [K of the rows, D/2] or None.
    relative_columns: [K of the columns, D/2] or None.
    kernel_size: odd int, or (rows, columns).
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask".
    scale: multiplies the query.
    pixels: integers [P, 2], the (row, column) of the queries of interest. Only their windows are
      computed, so that a few pixels of a large image cost little.

  Returns:
    [B, H, W, N, K, K] (window rows, window columns) without `pixels`, [B, P, N, K, K] with them;
    float32, or float64 for float64 inputs. Each window sums to one. With border="zero" the sum
    includes the weights of neighbors outside the image.

  Raises:
    ValueError: shapes, dtypes or arguments do not match.
    tf.errors.InvalidArgumentError: a pixel is outside the image.
  """
  geometry = window_geometry(kernel_size, dilation_rate, border)
  query = as_heads("query", query)
  geometry = within_image(geometry, *query.shape[1:3])
  key = None if key is None else as_heads("key", key, like=query)
  dtype = softmax_dtype(query.dtype)
  rows, columns = relative_tables(relative_rows, relative_columns, query, geometry.kernel_size)
  require_logits(key is not None, rows)
  with tf.name_scope("local_attention_weights"):
    if pixels is not None:
      pixels = _checked_pixels(pixels, query)
    if query.shape[4] == 0:  # a query of zeros has the same weights
      query, key = (None if x is None else tf.pad(x, [[0, 0]] * 4 + [[0, 2]]) for x in (query, key))
      rows, columns = (None if x is None else tf.pad(x, [[0, 0], [0, 1]]) for x in (rows, columns))
    if is_empty(query):
      size = tf.shape(query)
      places = size[1:3] if pixels is None else tf.shape(pixels)[:1]
      size = tf.concat([size[:1], places, size[3:4], geometry.kernel_size], axis=0)
      return empty_output(tf.zeros(size, dtype), (query, key, rows, columns))
    if pixels is None:
      queries = query
      windows = functools.partial(reference.extract_windows, geometry=geometry)
    else:
      queries = reference.gather_pixels(query, pixels)
      windows = functools.partial(reference.gather_windows, pixels=pixels, geometry=geometry)
    inside: Any = None
    if border == "mask":
      inside = windows(tf.ones_like(query[:, :, :, :1, :1], dtype))
      inside = inside[..., 0]
    weights = reference.attention_weights(
      tf.cast(queries, dtype) * scale,
      None if key is None else windows(tf.cast(key, dtype)),
      inside,
      rows,
      columns,
    )
    weights = tf.linalg.matrix_transpose(weights)  # [..., N, K*K]
    return tf.reshape(weights, tf.concat([tf.shape(weights)[:-1], geometry.kernel_size], axis=0))
