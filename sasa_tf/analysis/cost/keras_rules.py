"""Rules of the layers that both Kerases have under the same names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sasa_tf.analysis.cost.layer_ops import (
  FREE,
  Facts,
  Shape,
  activation_work,
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
def free(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Nothing happens in a forward pass of inference but bookkeeping."""
  del layer, inputs, outputs
  return FREE


@layer_rule("ZeroPadding2D", "Cropping2D", "Concatenate", "Permute")
def movement(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Numbers are moved, none is computed."""
  del layer, inputs, outputs
  return Facts()


@layer_rule("UpSampling2D")
def upsampling(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts | None:
  """Only repetition is free of arithmetic."""
  return movement(layer, inputs, outputs) if layer.interpolation == "nearest" else None


def _with_bias(
  layer: Any, kernel: int, biases: int, multiply_adds: int, outputs: Sequence[Shape]
) -> Facts:
  work = {"multiply_add": multiply_adds, **activation_work(layer, outputs)}
  if layer.use_bias:
    work["elementwise"] = elements(outputs)
  return Facts(parameters=kernel + (biases if layer.use_bias else 0), work=work)


@layer_rule("Conv1D", "Conv2D", "Conv3D")
def convolution(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Every position of the window counts, also on the padding, as everywhere in the literature."""
  channels = inputs[0][channel_axis(layer)] // layer.groups
  window = math.prod(layer.kernel_size) * channels
  return _with_bias(
    layer, window * layer.filters, layer.filters, window * elements(outputs), outputs
  )


@layer_rule("Conv2DTranspose")
def transposed_convolution(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Each input pixel is spread over a window."""
  spread = math.prod(layer.kernel_size) * layer.filters
  kernel = spread * inputs[0][channel_axis(layer)]
  return _with_bias(layer, kernel, layer.filters, spread * elements(inputs), outputs)


@layer_rule("DepthwiseConv2D")
def depthwise_convolution(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """One window for each output channel."""
  window = math.prod(layer.kernel_size)
  filters = inputs[0][channel_axis(layer)] * layer.depth_multiplier
  return _with_bias(layer, window * filters, filters, window * elements(outputs), outputs)


@layer_rule("SeparableConv2D")
def separable_convolution(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """A depthwise convolution, then a pointwise one; only the second has a bias."""
  window = math.prod(layer.kernel_size)
  between = inputs[0][channel_axis(layer)] * layer.depth_multiplier
  pixels = elements(outputs) // layer.filters
  kernels = between * (window + layer.filters)
  return _with_bias(layer, kernels, layer.filters, pixels * kernels, outputs)


@layer_rule("Dense")
def dense(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """A product over the last axis."""
  channels = inputs[0][-1]
  return _with_bias(
    layer, channels * layer.units, layer.units, channels * elements(outputs), outputs
  )


@layer_rule("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(
  layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Facts | None:
  """Of inference and of training alike: statistics, scale and shift count as one."""
  axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
  if len(axes) != 1:
    return None
  channels = inputs[0][axes[0]]
  return Facts(
    parameters=channels * (bool(layer.scale) + bool(layer.center)),
    statistics=2 * channels,
    work={"normalize": elements(outputs)},
  )


@layer_rule("LayerNormalization")
def layer_normalization(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Scale and shift have the size of the normalized axes."""
  axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
  size = math.prod(inputs[0][axis] for axis in axes)
  return Facts(
    parameters=size * (bool(layer.scale) + bool(layer.center)),
    work={"normalize": elements(outputs)},
  )


@layer_rule("GroupNormalization")
def group_normalization(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Scale and shift for each channel."""
  return Facts(
    parameters=inputs[0][layer.axis] * (bool(layer.scale) + bool(layer.center)),
    work={"normalize": elements(outputs)},
  )


@layer_rule("Activation")
def activation(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """By the function's name."""
  del inputs
  return Facts(work=activation_work(layer, outputs))


@layer_rule("ReLU", "LeakyReLU", "ELU")
def non_linearity(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """One operation an element."""
  del layer, inputs
  return Facts(work={"activate": elements(outputs)})


@layer_rule("Softmax")
def softmax(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """As the softmax of attention."""
  del layer, inputs
  return Facts(work={"softmax": elements(outputs)})


@layer_rule("MaxPooling2D", "AveragePooling2D")
def pooling(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Every position of every window."""
  del inputs
  return Facts(work={"pool": math.prod(layer.pool_size) * elements(outputs)})


@layer_rule("GlobalAveragePooling2D", "GlobalMaxPooling2D")
def global_pooling(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """One window, the whole map."""
  del layer, outputs
  return Facts(work={"pool": elements(inputs)})


@layer_rule("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Divide")
def merge(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Layers, and operators of Keras 3 such as `x + y`, of two or more operands."""
  del layer
  return Facts(work={"elementwise": max(1, len(inputs) - 1) * elements(outputs)})
