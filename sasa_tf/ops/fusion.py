"""Tells XLA what to keep apart."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # TensorFlow has no public name for this

from sasa_tf.ops.precision import compiled_by_xla
from sasa_tf.ops.target_device import target_device


def fused_for_gpu() -> bool:
  """Whether the operations made now are of a program of XLA's for a GPU."""
  return target_device() == "GPU" and compiled_by_xla()


@tf.custom_gradient
def _behind_barrier(tensor: tf.Tensor):
  (result,) = xla.optimization_barrier(tensor)
  return tf.ensure_shape(result, tensor.shape), lambda upstream: upstream


def not_fused(tensor: tf.Tensor) -> tf.Tensor:
  """Returns the tensor, which XLA's programs for a GPU take through memory.

  XLA otherwise computes a tensor anew for each number that it is used for, where that seems to save
  memory traffic; a sum of sums of many numbers takes ten times as long so.
  """
  return _behind_barrier(tensor) if fused_for_gpu() else tensor
