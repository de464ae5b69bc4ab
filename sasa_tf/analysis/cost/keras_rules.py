"""Rules of the layers that Keras 3 and tf_keras have under the same names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sasa_tf.analysis.cost.layer_ops import (
  FREE,
  LayerOps,
  Shape,
  activation_counts,
  channel_axis,
  elements,
)
from sasa_tf.analysis.cost.registry import layer_rule


@layer_rule(
  "InputLayer",
  "Identity",
  "Dropout",
  "SpatialDropout2D",
  "GaussianNoise",
  "GaussianDropout",
  "ActivityRegularization",
  "Flatten",
  "Reshape",
)
def free(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """No operations and no memory traffic in inference."""
  del layer, inputs, outputs
  return FREE


@layer_rule("ZeroPadding2D", "Cropping2D", "Concatenate", "Permute")
def movement(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Memory traffic without arithmetic."""
  del layer, inputs, outputs
  return LayerOps()


@layer_rule("UpSampling2D")
def upsampling(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps | None:
  """Supports only nearest-neighbor interpolation, which takes no arithmetic."""
  return movement(layer, inputs, outputs) if layer.interpolation == "nearest" else None


def _with_bias(
  layer: Any, kernel: int, biases: int, multiply_adds: int, outputs: Sequence[Shape]
) -> LayerOps:
  counts = {"multiply_add": multiply_adds, **activation_counts(layer, outputs)}
  if layer.use_bias:
    counts["elementwise"] = elements(outputs)
  return LayerOps(parameters=kernel + (biases if layer.use_bias else 0), op_counts=counts)


@layer_rule("Conv1D", "Conv2D", "Conv3D")
def convolution(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts every position of the window, including padding, as is usual in the literature."""
  channels = inputs[0][channel_axis(layer)] // layer.groups
  window = math.prod(layer.kernel_size) * channels
  return _with_bias(
    layer, window * layer.filters, layer.filters, window * elements(outputs), outputs
  )


@layer_rule("Conv2DTranspose")
def transposed_convolution(
  layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts one window per input pixel."""
  spread = math.prod(layer.kernel_size) * layer.filters
  kernel = spread * inputs[0][channel_axis(layer)]
  return _with_bias(layer, kernel, layer.filters, spread * elements(inputs), outputs)


@layer_rule("DepthwiseConv2D")
def depthwise_convolution(
  layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts one window per output element."""
  window = math.prod(layer.kernel_size)
  filters = inputs[0][channel_axis(layer)] * layer.depth_multiplier
  return _with_bias(layer, window * filters, filters, window * elements(outputs), outputs)


@layer_rule("SeparableConv2D")
def separable_convolution(
  layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts a depthwise and a pointwise convolution; only the second has a bias."""
  window = math.prod(layer.kernel_size)
  between = inputs[0][channel_axis(layer)] * layer.depth_multiplier
  pixels = elements(outputs) // layer.filters
  kernels = between * (window + layer.filters)
  return _with_bias(layer, kernels, layer.filters, pixels * kernels, outputs)


@layer_rule("Dense")
def dense(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts a matrix product over the last axis."""
  channels = inputs[0][-1]
  return _with_bias(
    layer, channels * layer.units, layer.units, channels * elements(outputs), outputs
  )


@layer_rule("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(
  layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps | None:
  """Counts each element once, for normalization, scale and shift together."""
  axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
  if len(axes) != 1:
    return None
  channels = inputs[0][axes[0]]
  return LayerOps(
    parameters=channels * (bool(layer.scale) + bool(layer.center)),
    non_trainable_parameters=2 * channels,
    op_counts={"normalize": elements(outputs)},
  )


@layer_rule("LayerNormalization")
def layer_normalization(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """As batch norm; scale and shift have the shape of the normalized axes."""
  axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
  size = math.prod(inputs[0][axis] for axis in axes)
  return LayerOps(
    parameters=size * (bool(layer.scale) + bool(layer.center)),
    op_counts={"normalize": elements(outputs)},
  )


@layer_rule("GroupNormalization")
def group_normalization(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """As batch norm, without moving averages."""
  return LayerOps(
    parameters=inputs[0][layer.axis] * (bool(layer.scale) + bool(layer.center)),
    op_counts={"normalize": elements(outputs)},
  )


@layer_rule("Activation")
def activation(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts softmax or any other function."""
  del inputs
  return LayerOps(op_counts=activation_counts(layer, outputs))


@layer_rule("ReLU", "LeakyReLU", "ELU")
def non_linearity(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts each element once."""
  del layer, inputs
  return LayerOps(op_counts={"activate": elements(outputs)})


@layer_rule("Softmax")
def softmax(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts each element as a logit, as in attention."""
  del layer, inputs
  return LayerOps(op_counts={"softmax": elements(outputs)})


@layer_rule("MaxPooling2D", "AveragePooling2D")
def pooling(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts every position of every window."""
  del inputs
  return LayerOps(op_counts={"pool": math.prod(layer.pool_size) * elements(outputs)})


@layer_rule("GlobalAveragePooling2D", "GlobalMaxPooling2D")
def global_pooling(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts every input element."""
  del layer, outputs
  return LayerOps(op_counts={"pool": elements(inputs)})


@layer_rule("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Divide")
def merge(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts operands minus one per element, of layers and of Keras 3 operators such as `x + y`."""
  del layer
  return LayerOps(op_counts={"elementwise": max(1, len(inputs) - 1) * elements(outputs)})
