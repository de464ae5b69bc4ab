"""Attention of tensors without elements: no output, and gradients of zero.

Sizes of 0 that are known when the graph is built need no computation. Sizes that are unknown then
are padded to 1 where TensorFlow's operations fail for 0, except in exported graphs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from sasa_tf.ops.export_context import is_tracing_for_export


def empty_output(output: tf.Tensor, inputs: Iterable[tf.Tensor | None]) -> tf.Tensor:
  """Returns the output, which has no elements, with gradients of zero for all inputs.

  Args:
    output: a tensor without elements.
    inputs: what it would be computed from; None for absent ones.
  """
  for tensor in inputs:
    if tensor is not None:
      output += tf.cast(tf.reduce_sum(tensor[:0]), output.dtype)
  return output


def at_least_one(size: Any) -> Any:
  """Returns an int as it is, and of a scalar tensor the maximum with 1."""
  if isinstance(size, int) or is_tracing_for_export():
    return size
  return tf.maximum(size, 1)


def without_empty_axes(tensor: tf.Tensor, axes: int) -> tf.Tensor:
  """Pads those of the first axes to size 1 whose size turns out to be 0 when the graph runs."""
  unknown = [size is None for size in tensor.shape[:axes]]
  if not any(unknown) or is_tracing_for_export():
    return tensor
  size = tf.shape(tensor)
  missing = [
    tf.cast(tf.equal(size[axis], 0), tf.int32) if unknown else 0
    for axis, unknown in enumerate(unknown)
  ]
  missing += [0] * (tensor.shape.rank - axes)
  padded = tf.pad(tensor, tf.stack([tf.zeros_like(size), tf.stack(missing)], axis=1))
  padded.set_shape(
    [None if i < axes and unknown[i] else s for i, s in enumerate(tensor.shape.as_list())]
  )
  return padded
