"""The device that operations are built for, and barriers against XLA's rewrites on it."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.types import DEVICES, Device

_target: contextvars.ContextVar[Device | None] = contextvars.ContextVar(
  "target_device", default=None
)


def target_device() -> Device:
  """Returns the device set by `use_target_device`, else the best one of this process."""
  device = _target.get()
  if device is not None:
    return device
  present = {device.device_type for device in tf.config.list_logical_devices()}
  for device in DEVICES:
    if device in present:
      return device
  return "CPU"


@contextlib.contextmanager
def use_target_device(device: Device) -> Iterator[None]:
  """Context manager that builds operations for a device that this process need not have.

  The device decides block sizes, chunk sizes and barriers. It is read when an operation is called
  eagerly or a `tf.function` is traced. Use it when a model is exported for another machine, or for
  ahead-of-time compilation. It does not place operations, and results are equal up to rounding.

  Args:
    device: "CPU", "GPU" or "TPU".

  Raises:
    ValueError: `device` is another name.
  """
  if device not in DEVICES:
    raise ValueError(f"use_target_device(device) must be one of {DEVICES}; received {device!r}.")
  token = _target.set(device)
  try:
    yield
  finally:
    _target.reset(token)


def compiled_for_gpu() -> bool:
  """Returns whether the operations being built belong to an XLA program for a GPU."""
  return target_device() == "GPU" and compat.in_xla_context()


def recompute_barrier(
  earlier: Sequence[tf.Tensor], tensors: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
  """Adds a data dependency on `earlier`, so that recomputation is not merged with the forward pass.

  A backward pass that rematerializes operations of its forward pass must read the returned tensors.
  Otherwise common subexpression elimination finds the same operation twice, computes it once and
  keeps its result from the forward to the backward pass, which is the memory that rematerialization
  saves (attention ResNet-50, batch 64, bfloat16 on a GPU: 9.6 GiB instead of 4.0). There is no
  barrier on a CPU, where chunks fit into the cache and merging saves time.

  Args:
    earlier: floating-point tensors to wait for, such as the output and its gradient.
    tensors: floating-point inputs of the forward pass.

  Returns:
    Tensors equal to `tensors`.
  """
  if tf.executing_eagerly() or target_device() == "CPU":
    return list(tensors)
  if not compat.in_xla_context():
    with tf.control_dependencies(earlier):
      return [tf.identity(tensor) for tensor in tensors]
  # XLA orders operations by data alone, and removes its optimization barriers before scheduling.
  # So add a zero that it cannot fold: no number is less than -inf.
  firsts = [tensor[(slice(1),) * len(tensor.shape)] for tensor in earlier]
  zero = tf.reduce_any([tf.reduce_any(first < -math.inf) for first in firsts])
  return [tensor + tf.cast(zero, tensor.dtype) for tensor in tensors]


@tf.custom_gradient
def _optimization_barrier(tensor: tf.Tensor) -> Any:
  return compat.optimization_barrier(tensor), lambda upstream: upstream


def fusion_barrier(tensor: tf.Tensor) -> tf.Tensor:
  """Returns the tensor, materialized in memory in XLA programs for a GPU.

  Otherwise XLA may fuse the producer into every consumer and recompute it for each element, because
  that saves memory traffic. Nested reductions then take ten times as long.
  """
  return _optimization_barrier(tensor) if compiled_for_gpu() else tensor
