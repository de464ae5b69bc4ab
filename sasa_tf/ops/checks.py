"""Checks and conversions of the arguments that the attention functions share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.export_context import is_tracing_for_export
from sasa_tf.ops.types import BORDERS, Border, IntOrPair
from sasa_tf.ops.window import WindowGeometry


def softmax_dtype(dtype: tf.DType) -> tf.DType:
  """Returns the dtype of logits and softmax for inputs of `dtype`: float32, or float64."""
  return tf.float64 if dtype == tf.float64 else tf.float32


def static_size(tensor: tf.Tensor | tf.TensorSpec, axis: int) -> int:
  """Returns the size of an axis that is static, such as N and D of checked arguments."""
  return cast("int", tensor.shape[axis])


Size = Any  # an int if static, else a scalar tensor


def sizes(tensor: tf.Tensor) -> list[Size]:
  """Returns the shape, each size an int if static and else a scalar tensor."""
  if tensor.shape.is_fully_defined():
    return tensor.shape.as_list()
  dynamic = tf.unstack(tf.shape(tensor))
  return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def inferable_sizes(tensor: tf.Tensor) -> list[Size]:
  """Returns `sizes`, but -1 for the batch if it is the only unknown size.

  For `reshape_inferring`. Graphs with an unknown batch then need no operations that compute shapes.
  They take longer than small operations on tensors, and most of the operations of a graph.
  """
  batch, *others = tensor.shape.as_list()
  if batch is None and None not in others and 0 not in others:
    return [-1, *others]
  return sizes(tensor)


def reshape_inferring(tensor: tf.Tensor, shape: Sequence[Size]) -> tf.Tensor:
  """`tf.reshape` to `inferable_sizes` or multiples of them: a negative size is inferred."""
  return tf.reshape(tensor, [max(-1, size) if isinstance(size, int) else size for size in shape])


def ceil_divide(size: Size, divisor: int) -> Size:
  """Returns ceil(size / divisor) of a size."""
  # Not -(-size // divisor): tf2onnx rounds quotients of negative integers towards zero.
  return (size + divisor - 1) // divisor


def with_static_shape(tensor: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
  """Returns a tensor of this module's own computation with the static shape that it has.

  Unlike `tf.ensure_shape` it adds no operation to the graph: exported graphs may only hold
  operations that LiteRT and ONNX have.
  """
  if not tf.executing_eagerly():
    tensor.set_shape(shape)
  return tensor


def require_shape(tensor: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
  """Returns an argument with the static shape `shape`.

  Sizes that are unknown when the graph is built are compared when it runs, except in exported
  graphs, which may only hold operations that LiteRT and ONNX have.

  Raises:
    ValueError: a size that is known differs.
    tf.errors.InvalidArgumentError: a size differs when the graph runs.
  """
  known = tensor.shape
  if known.rank == len(shape) and all(
    size is None or size == known[axis] for axis, size in enumerate(shape)
  ):
    return tensor
  if is_tracing_for_export():
    return with_static_shape(tf.identity(tensor), shape)
  return tf.ensure_shape(tensor, shape)


def int_pair(name: str, value: IntOrPair | list[int]) -> tuple[int, int]:
  """Returns (rows, columns) of a positive int or a pair of them; `name` is for the error."""
  pair = (value, value) if isinstance(value, int) else value
  valid = (
    isinstance(pair, (tuple, list))
    and len(pair) == 2
    and all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v < 2**31 for v in pair)
  )
  if not valid:
    raise ValueError(
      f"{name} must be a positive int or a pair (rows, columns) of positive ints, each less than "
      f"2**31; received {value!r}."
    )
  return pair[0], pair[1]


@functools.cache
def _checked_geometry(
  kernel_size: tuple[int, int], dilation_rate: tuple[int, int], border: Border
) -> WindowGeometry:
  if any(k % 2 == 0 for k in kernel_size):
    raise ValueError(
      "kernel_size must be odd, because the window is centered on its query (paper Sec. 3.1); "
      f"received {kernel_size}. Use {tuple(k + 1 - k % 2 for k in kernel_size)} instead."
    )
  if border not in BORDERS:
    raise ValueError(
      f"border must be one of {BORDERS}: 'zero' treats neighbors outside the image as zero keys "
      f"and values that take part in the softmax, 'mask' excludes them; received {border!r}."
    )
  return WindowGeometry(kernel_size, dilation_rate, border)


def window_geometry(
  kernel_size: IntOrPair | list[int] = 7,
  dilation_rate: IntOrPair | list[int] = 1,
  border: Border = "zero",
) -> WindowGeometry:
  """Returns the checked geometry of a window; the same object for equal arguments.

  Args:
    kernel_size: odd int, or (rows, columns) of odd ints.
    dilation_rate: int or (rows, columns), in pixels.
    border: "zero" or "mask".

  Raises:
    ValueError: `kernel_size` is even or not positive, or `border` is unknown.
  """
  return _checked_geometry(
    int_pair("kernel_size", kernel_size), int_pair("dilation_rate", dilation_rate), border
  )


# Cached so that an eager call does not compute it a second time.
within_image = functools.lru_cache(maxsize=4096)(WindowGeometry.within)


def is_empty(tensor: tf.Tensor | tf.TensorSpec) -> bool:
  """Returns whether a size is known to be 0 when the graph is built."""
  return 0 in tensor.shape.as_list()


def require_floating(name: str, tensor: tf.Tensor) -> None:
  """Raises a ValueError unless the tensor has a floating-point dtype."""
  if not tensor.dtype.is_floating:
    raise ValueError(f"{name} must be floating point; received {tensor.dtype.name}. Cast it first.")


def as_heads(name: str, tensor: Any, like: tf.Tensor | None = None) -> tf.Tensor:
  """Converts an argument to a tensor [B, H, W, N, D] with static N and D.

  Args:
    name: name of the argument, for the error.
    tensor: the argument.
    like: a tensor whose shape and dtype it must have, or None.

  Raises:
    ValueError: the shape or the dtype is wrong.
    tf.errors.InvalidArgumentError: a size that is unknown when the graph is built differs from that
      of `like`, when the graph runs.
  """
  tensor = tf.convert_to_tensor(tensor)
  expected = "[B, H, W, N, D], with the N heads and their width D known when the graph is built"
  if tensor.shape.rank != 5 or None in tensor.shape[3:].as_list():
    raise ValueError(
      f"{name} must have shape {expected}; received {tensor.shape}. Split the channels with "
      "tf.reshape(x, [B, H, W, N, D])."
    )
  require_floating(name, tensor)
  if like is not None:
    if not tensor.shape.is_compatible_with(like.shape):
      raise ValueError(
        f"query, key and value must have one shape {expected}; received query {like.shape} and "
        f"{name} {tensor.shape}."
      )
    if tensor.dtype != like.dtype:
      raise ValueError(
        f"query, key and value must have one dtype; received query {like.dtype.name} and {name} "
        f"{tensor.dtype.name}. Cast them to the same."
      )
    tensor = _compared_at_run_time(name, tensor, like)
  return tensor


def _compared_at_run_time(name: str, tensor: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
  """Returns the tensor; running the graph fails if it has another size than `like`.

  Exported graphs have no such check, because their stock runtimes may not support it.
  """
  known = tensor.shape.is_fully_defined() and like.shape.is_fully_defined()
  if tensor is like or known or is_tracing_for_export():
    return tensor
  if compat.in_xla_context():  # XLA removes assertions, but knows all sizes when it compiles
    like = tf.stop_gradient(like)
    return tf.concat([like[:, :0], tf.concat([like[:0], tensor], axis=0)], axis=1)
  message = f"query and {name} must have one shape"
  with tf.control_dependencies(
    [tf.debugging.assert_equal(tf.shape(tensor), tf.shape(like), message=message)]
  ):
    return tf.identity(tensor)


def as_packed_qkv(qkv: Any) -> tuple[tf.Tensor, tf.TensorSpec]:
  """Converts packed query, key and value to a tensor with static N and D.

  Args:
    qkv: [B, H, W, 3, N, D], or [B, H, W, 2, N, D] of query and value.

  Returns:
    The tensor, and the spec of its query, [B, H, W, N, D].

  Raises:
    ValueError: the shape or the dtype is wrong.
  """
  qkv = tf.convert_to_tensor(qkv)
  shape = qkv.shape
  if shape.rank != 6 or shape[3] not in (2, 3) or None in shape[4:].as_list():
    raise ValueError(
      "qkv must have shape [B, H, W, 3, N, D] of query, key and value, or [B, H, W, 2, N, D] of "
      f"query and value, with N and D known when the graph is built; received {shape}. Split the "
      "channels with tf.reshape(x, [B, H, W, 3, N, D])."
    )
  require_floating("qkv", qkv)
  return qkv, tf.TensorSpec([*shape[:3], *shape[4:]], qkv.dtype)


def relative_tables(
  relative_rows: Any,
  relative_columns: Any,
  query: tf.Tensor | tf.TensorSpec,
  sizes: tuple[int, int],
  source: str = "kernel_size",
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
  """Checks both tables of relative embeddings and casts them to the softmax's dtype.

  Args:
    relative_rows: [K of the rows, D/2], or None.
    relative_columns: [K of the columns, D/2], or None.
    query: [B, H, W, N, D].
    sizes: K of the rows and of the columns.
    source: the argument that decides the sizes, for the error.

  Returns:
    Both tables, or (None, None) if both are None.

  Raises:
    ValueError: one table is None, D is odd, or a shape is wrong.
  """
  if relative_rows is None and relative_columns is None:
    return None, None
  if relative_rows is None or relative_columns is None:
    missing = "relative_rows" if relative_rows is None else "relative_columns"
    raise ValueError(
      "relative_rows and relative_columns go together, as r is their concatenation (paper "
      f"Sec. 3.1); {missing} is None. Pass both, or neither for attention without positions."
    )
  head_dim = static_size(query, 4)
  if head_dim % 2:
    raise ValueError(
      "the head width D must be even with relative positions, half of it for the row and half for "
      f"the column (paper Sec. 3.1); received D = {head_dim}. Change the number of heads or "
      "channels, or pass no relative tables."
    )
  tables = []
  for name, table, size in (
    ("relative_rows", relative_rows, sizes[0]),
    ("relative_columns", relative_columns, sizes[1]),
  ):
    table = tf.convert_to_tensor(table)
    if not table.shape.is_compatible_with([size, head_dim // 2]):
      raise ValueError(
        f"{name} must have shape [K, D/2] = {[size, head_dim // 2]} for {source} "
        f"{tuple(sizes)} and heads of width {head_dim}; received {table.shape}."
      )
    table = require_shape(table, [size, head_dim // 2])
    tables.append(tf.cast(table, softmax_dtype(query.dtype)))
  rows, columns = tables
  return rows, columns


def require_logits(has_key: bool, relative_rows: tf.Tensor | None) -> None:
  """Raises a ValueError if the logits have neither a content term nor a relative term."""
  if not has_key and relative_rows is None:
    raise ValueError(
      "attention without keys needs relative_rows and relative_columns, else every logit is "
      "empty; received key=None and no relative tables. Pass the key or both tables."
    )
