"""The `reference` implementation: Eq. 3 of the paper in its simplest form.

It materializes every window with `tf.image.extract_patches`, so keys and values take K x K times
their memory. It is the specification: the other implementations are tested to be equal to it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sasa_tf.ops.checks import softmax_dtype, static_size
from sasa_tf.ops.empty import without_empty_axes
from sasa_tf.ops.window import WindowGeometry

# Finite, so that no border arithmetic can produce NaN; exp(-1e9 - max) is exactly 0 in float32.
MASKED_LOGIT = -1e9


def extract_windows(images: tf.Tensor, geometry: WindowGeometry) -> tf.Tensor:
  """Gathers the window around each pixel, with zeros outside the image.

  Args:
    images: [B, H, W, N, D].
    geometry: the window.

  Returns:
    [B, H, W, K*K, N, D], window positions row by row.
  """
  heads, width = static_size(images, 3), static_size(images, 4)
  padded = without_empty_axes(images, 3)
  batch, height, columns = tf.unstack(tf.shape(padded)[:3])
  patches = tf.image.extract_patches(
    tf.reshape(padded, [batch, height, columns, heads * width]),
    sizes=[1, *geometry.kernel_size, 1],
    strides=[1, 1, 1, 1],
    rates=[1, *geometry.dilation_rate, 1],
    padding="SAME",
  )
  windows = tf.reshape(patches, [batch, height, columns, geometry.size, heads, width])
  if padded is images:
    return windows
  batch, height, columns = tf.unstack(tf.shape(images)[:3])
  return windows[:batch, :height, :columns]


def gather_pixels(images: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
  """Gathers the same pixels from every image.

  Args:
    images: [B, H, W, N, D].
    pixels: integers [..., 2], (row, column), inside the image.

  Returns:
    [B, ..., N, D].
  """
  batch_last = tf.einsum("bhwnd->hwndb", images)
  return tf.einsum("...ndb->b...nd", tf.gather_nd(batch_last, pixels))


def gather_windows(images: tf.Tensor, pixels: tf.Tensor, geometry: WindowGeometry) -> tf.Tensor:
  """`extract_windows` of some pixels only.

  Args:
    images: [B, H, W, N, D].
    pixels: integers [P, 2], (row, column), inside the image.
    geometry: the window.

  Returns:
    [B, P, K*K, N, D].
  """
  (above, left), (row_offsets, column_offsets) = geometry.reach, geometry.offsets
  padded = tf.pad(images, [[0, 0], [above, above], [left, left], [0, 0], [0, 0]])
  offsets = tf.reshape(
    tf.stack(tf.meshgrid(row_offsets, column_offsets, indexing="ij"), axis=-1), [-1, 2]
  )
  positions = pixels[:, None] + offsets + [above, left]  # [P, K*K, 2]
  return gather_pixels(padded, positions)


def relative_logits(
  query: tf.Tensor, relative_rows: tf.Tensor, relative_columns: tf.Tensor
) -> tf.Tensor:
  """q_ij . r_{a-i, b-j}, with r the concatenation of a row and a column embedding.

  Args:
    query: [..., N, D].
    relative_rows: [K of the rows, D/2].
    relative_columns: [K of the columns, D/2].

  Returns:
    [..., K*K, N].
  """
  query_rows, query_columns = tf.split(query, 2, axis=-1)
  row_term = tf.einsum("...nd,rd->...rn", query_rows, relative_rows)
  column_term = tf.einsum("...nd,cd->...cn", query_columns, relative_columns)
  both = row_term[..., :, None, :] + column_term[..., None, :, :]  # [..., K, K, N]
  window = static_size(both, -3) * static_size(both, -2)
  return tf.reshape(
    both, tf.concat([tf.shape(query)[:-2], [window, static_size(query, -2)]], axis=0)
  )


def attention_weights(
  query: tf.Tensor,
  key_windows: tf.Tensor | None,
  inside: tf.Tensor | None,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
) -> tf.Tensor:
  """softmax_ab(q_ij . k_ab + q_ij . r_{a-i, b-j}) over each window.

  Args:
    query: [..., N, D], scaled, in the softmax's dtype.
    key_windows: [..., K*K, N, D], or None for no content term.
    inside: [..., K*K, 1], 1 inside the image and 0 outside, or None if all take part.
    relative_rows: [K of the rows, D/2], or None for no relative term.
    relative_columns: [K of the columns, D/2], or None.

  Returns:
    [..., K*K, N].
  """
  logits = 0.0
  if key_windows is not None:
    per_position: Any = query
    logits += tf.reduce_sum(per_position[..., None, :, :] * key_windows, axis=-1)
  if relative_rows is not None and relative_columns is not None:
    logits += relative_logits(query, relative_rows, relative_columns)
  if inside is not None:
    # Selected, not added: an infinity of a table does not bring a masked position back.
    logits = tf.where(inside > 0, logits, MASKED_LOGIT)
  return tf.nn.softmax(logits, axis=-2)


def unsupported_reason(
  query: tf.Tensor | tf.TensorSpec, geometry: WindowGeometry, window_mask: bool, qkv_parts: int = 1
) -> str | None:
  """Returns why `local_attention` does not support these arguments, or None if it does."""
  del query, geometry, qkv_parts
  if window_mask:
    return None
  return (
    "window_mask=False (HaloNet: a query sees its whole block of keys) needs an implementation "
    "that works in blocks of queries; 'reference' gathers each window exactly"
  )


def local_attention(
  query: tf.Tensor,
  key: tf.Tensor | None,
  value: tf.Tensor,
  relative_rows: tf.Tensor | None,
  relative_columns: tf.Tensor | None,
  geometry: WindowGeometry,
  scale: float,
  *,
  window_mask: bool = True,
) -> tf.Tensor:
  """y_ij = sum_ab weights_ab v_ab (paper Eq. 3).

  Args:
    query: [B, H, W, N, D].
    key: as `query`, or None.
    value: as `query`.
    relative_rows: [K of the rows, D/2] in the softmax's dtype, or None.
    relative_columns: [K of the columns, D/2] likewise, or None.
    geometry: the window.
    scale: multiplies the query.
    window_mask: True, see `unsupported_reason`.

  Returns:
    [B, H, W, N, D] in value's dtype.
  """
  del window_mask
  dtype = softmax_dtype(query.dtype)

  def windows(images: tf.Tensor) -> Any:
    return extract_windows(tf.cast(images, dtype), geometry)

  weights: Any = attention_weights(
    tf.cast(query, dtype) * scale,
    None if key is None else windows(key),
    windows(tf.ones_like(query[:1, :, :, :1, :1]))[..., 0] if geometry.border == "mask" else None,
    relative_rows,
    relative_columns,
  )
  result = tf.reduce_sum(weights[..., None] * windows(value), axis=-3)
  return tf.cast(result, value.dtype)
