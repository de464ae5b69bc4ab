"""The gradients of the projections of local self-attention, by one compiled kernel.

Stock operations compute two matrix products, each of which reads the gradient of query, key and
value. The kernel reads it once.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.native import library, limits
from sasa_tf.ops.checks import static_size
from sasa_tf.ops.compiled.stablehlo import SIZES, Array, module
from sasa_tf.ops.compiled.xla_custom_call import ELEMENT_TYPES, PLATFORMS, call_kernel
from sasa_tf.ops.derivatives import vector_jacobian_product
from sasa_tf.ops.qkv_packing import Projection

_PLATFORMS = ("CUDA",)
_HOPPER_CAPABILITY, _HOPPER_ARCHITECTURE = (9, 0), 90

# Elements of the inputs from which the kernel is faster than two products, measured on an H200. Its
# partial sums take the same time for inputs of any size.
_MIN_ELEMENTS = 2**23


def has_hopper_kernels() -> bool:
  """Returns whether the GPUs have the kernels with instructions that exist on no other GPU."""
  loaded = library.load()
  return (
    library.gpu_capability() == _HOPPER_CAPABILITY
    and PLATFORMS["GPU"] in loaded.platforms
    and _HOPPER_ARCHITECTURE in loaded.architectures
  )


def is_faster(projection: Projection) -> bool:
  """Returns whether the kernel supports the projection, and is faster than two products.

  Inputs of unknown size count as large.
  """
  elements = projection.inputs.shape.num_elements()
  return (
    (elements is None or elements >= _MIN_ELEMENTS)
    and has_hopper_kernels()
    and limits.supports_projection_backward(
      projection.inputs.dtype.name,
      tuple(projection.inputs.shape[:3]),
      *map(int, projection.kernel.shape),
    )
  )


@functools.cache
def _call(element: str, channels: int, outputs: int) -> str:
  """Takes inputs, kernel and upstream gradient; returns the gradients of both, and scratch."""
  limit = limits.constants()
  inputs, kernel = Array((*SIZES, channels), element), Array((channels, outputs), element)
  # ProjectionWorkspaceFloats of sasa_tf/native/projection_kernels.h.
  scratch = Array((int(limit["kProjectionWorkers"] * limit["kProjectionSlice"] * outputs),))
  return module(
    "projection_backward",
    [inputs, kernel, Array((*SIZES, outputs), element)],
    [inputs, kernel, scratch],
    {},
    _PLATFORMS,
  )


def _gradients(inputs: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
  """Returns the gradients of inputs and kernel.

  Args:
    inputs: [B, H, W, C].
    kernel: [C, 3 * N * D].
    upstream: gradient of the packed query, key and value, [B, H, W, 3, N, D].
  """
  channels, outputs = static_size(kernel, 0), static_size(kernel, 1)
  specs = [
    tf.TensorSpec(inputs.shape, inputs.dtype),
    tf.TensorSpec(kernel.shape, kernel.dtype),
    tf.TensorSpec([None], tf.float32),  # scratch
  ]
  d_outputs = tf.reshape(upstream, [*tf.unstack(tf.shape(inputs)[:3]), outputs])
  d_inputs, d_kernel, _ = call_kernel(
    _call(ELEMENT_TYPES[inputs.dtype], channels, outputs),
    _PLATFORMS,
    [inputs, kernel, d_outputs],
    specs,
  )
  return [d_inputs, d_kernel]


def _stock_gradients(inputs: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
  """`_gradients` in differentiable TensorFlow operations."""

  def product(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.tensordot(inputs, kernel, axes=1), tf.shape(upstream))

  return vector_jacobian_product(product, [inputs, kernel], [upstream])


def with_gradients(qkv: tf.Tensor, projection: Projection) -> tf.Tensor:
  """Returns packed query, key and value, whose gradient the kernel propagates.

  Args:
    qkv: [B, H, W, 3, N, D].
    projection: the product that `qkv` is, where `is_faster` returns True.
  """
  if compat.carries_tangents([projection.inputs, projection.kernel]):
    return qkv

  @tf.custom_gradient
  def project(inputs: tf.Tensor, kernel: tf.Tensor) -> Any:
    @tf.custom_gradient
    def gradient(*arguments: tf.Tensor) -> Any:
      def second_gradient(*upstreams: Any) -> Any:
        return vector_jacobian_product(_stock_gradients, arguments, upstreams)

      return _gradients(*arguments), second_gradient

    def first_gradient(upstream: tf.Tensor) -> Any:
      arguments = (inputs, kernel, upstream)
      if compat.carries_tangents(arguments):
        return _stock_gradients(*arguments)
      return gradient(*arguments)

    return tf.stop_gradient(qkv), first_gradient

  return project(projection.inputs, projection.kernel)
