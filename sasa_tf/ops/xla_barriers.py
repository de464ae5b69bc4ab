"""Makes a backward pass compute again what the forward pass did not keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from sasa_tf.ops.precision import compiled_by_xla
from sasa_tf.ops.target_device import target_device


def computed_after(earlier: Sequence[tf.Tensor], tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
  """Returns the tensors, not to be had before others are computed.

  A backward pass that repeats operations of its forward pass must read these instead of the
  tensors. The compilers otherwise see the same operation of the same tensors twice, compute it
  once, and keep its result from the forward to the backward pass: the memory that recomputing was
  to save. (Attention ResNet-50, batch 64, bfloat16 on a GPU: 9.6 GiB instead of 4.0.) They may
  do so on a CPU, where chunks of the cache's size are all that can be kept.

  Args:
    earlier: of floating dtypes; output of the forward pass and gradient of it, for instance.
    tensors: of floating dtypes, inputs of the forward pass.
  """
  if tf.executing_eagerly() or target_device() == "CPU":
    return list(tensors)
  if not compiled_by_xla():
    with tf.control_dependencies(earlier):
      return [tf.identity(tensor) for tensor in tensors]
  # XLA knows no order but that of data, and removes its optimization barriers before it schedules.
  # So a zero is added of which it cannot know that it is one: no number is less than -inf.
  firsts = [tensor[(slice(1),) * len(tensor.shape)] for tensor in earlier]
  zero = tf.reduce_any([tf.reduce_any(first < -math.inf) for first in firsts])
  return [tensor + tf.cast(zero, tensor.dtype) for tensor in tensors]
