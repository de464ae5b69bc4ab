"""The attention operation on feature maps, and the 3x3 convolution with as many channels."""

from __future__ import annotations

import functools

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import Workload, make_step, random_tensors, tensor_bytes
from sasa_tf.ops.checks import softmax_dtype


def convolution(case: Case) -> Workload:
  """Returns a 3x3 `tf.nn.conv2d` with stride 1."""
  channels = case.shape[2]
  maps = [case.batch_size, *case.shape]
  images, kernel, upstream = random_tensors(
    [maps, [3, 3, channels, channels], maps], case.dtype, [1.0, (9 * channels) ** -0.5, 1.0]
  )
  function = functools.partial(tf.nn.conv2d, strides=1, padding="SAME")
  # Forward reads images and kernel and writes the output. Backward reads all three and writes the
  # gradients of images and kernel.
  maps_moved, kernels_moved = (2, 1) if case.mode == "forward" else (5, 3)
  return Workload(
    make_step(function, case.mode),
    [images, kernel] if case.mode == "forward" else [images, kernel, upstream],
    required_bytes=maps_moved * tensor_bytes(images) + kernels_moved * tensor_bytes(kernel),
  )


def attention(case: Case, implementation: str) -> Workload:
  """Returns `local_attention_2d` with relative positions.

  The gradients are those of query, key, value and both position tables.

  Raises:
    ValueError: the channels cannot be divided among the heads.
  """
  height, width, channels = case.shape
  if channels % (2 * case.num_heads):
    raise ValueError(
      "attention with relative positions requires channels that are a multiple of 2 * num_heads; "
      f"received {channels} channels and num_heads={case.num_heads}. Change --shapes or "
      "--num_heads."
    )
  head_dim = channels // case.num_heads
  maps = [case.batch_size, height, width, case.num_heads, head_dim]
  table = [case.kernel_size, head_dim // 2]
  small = head_dim**-0.5
  *projected, upstream = random_tensors([maps] * 4, case.dtype, [small, 1.0, 1.0, 1.0])
  # The dtype of the tables in the layers, also in mixed precision.
  tables = random_tensors([table] * 2, softmax_dtype(upstream.dtype), [1.0, 1.0])
  arguments = [*projected, *tables]
  function = functools.partial(
    ops.local_attention_2d,
    kernel_size=case.kernel_size,
    dilation_rate=case.dilation_rate,
    border=case.border,
    implementation=implementation,
  )
  # Forward reads q, k, v and writes the output. Backward reads q, k, v and the gradient of the
  # output and writes three gradients. The tables are negligible.
  maps_moved = 4 if case.mode == "forward" else 11
  return Workload(
    make_step(function, case.mode),
    arguments if case.mode == "forward" else [*arguments, upstream],
    required_bytes=maps_moved * tensor_bytes(upstream),
  )
