"""Rules of the attention layers that augment convolutions, the paper's baselines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import AttentionAugmentedConv2DBase, NonLocal2DBase, SqueezeExcitation2DBase


@layer_rule(SqueezeExcitation2DBase)
def squeeze_excitation(
  layer: SqueezeExcitation2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts global pooling, two dense layers and the scaling of each pixel."""
  channels = inputs[0][-1]
  squeezed = max(1, channels // layer.ratio)
  return LayerOps(
    parameters=2 * channels * squeezed + squeezed + channels,
    op_counts={
      "multiply_add": 2 * channels * squeezed,
      "elementwise": squeezed + channels + elements(outputs),
      "activate": squeezed + channels,
      "pool": elements(inputs),
    },
  )


@layer_rule(NonLocal2DBase)
def non_local(layer: NonLocal2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> LayerOps:
  """Counts global attention with one head, batch norm and the residual addition."""
  ((_, height, width, channels),) = inputs
  inner, pixels, keys = layer.inner_filters, height * width, height * width
  counts = Counter(normalize=elements(outputs), elementwise=elements(outputs))
  if layer.subsample:
    keys = math.ceil(height / 2) * math.ceil(width / 2)
    counts["pool"] += 2 * 4 * keys * inner
  counts["multiply_add"] += 4 * pixels * channels * inner + 2 * pixels * keys * inner
  counts["softmax"] += pixels * keys
  if layer.scale != 1:
    counts["elementwise"] += pixels * inner
  return LayerOps(
    parameters=4 * channels * inner + 2 * channels,
    non_trainable_parameters=2 * channels,
    op_counts=counts,
  )


@layer_rule(AttentionAugmentedConv2DBase)
def attention_augmented(
  layer: AttentionAugmentedConv2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts a convolution and global attention at the resolution of the output."""
  channels = inputs[0][-1]
  ((_, height, width, filters),) = outputs
  keys, values, heads = layer.key_filters, layer.value_filters, layer.num_heads
  pixels, pairs = height * width, (height * width) ** 2
  kernels = layer.kernel_size**2 * channels * (filters - values)
  kernels += channels * (2 * keys + values) + values**2
  parameters = kernels
  counts = Counter(
    multiply_add=pixels * kernels + pairs * (keys + values),
    softmax=pairs * heads,
    elementwise=pixels * keys,  # the query's scale
  )
  if layer.positions == "relative":
    # There is one embedding per row and column offset of the feature map, so every implementation
    # computes q.r per row and per column.
    parameters += (2 * height - 1 + 2 * width - 1) * (keys // heads)
    counts["multiply_add"] += pixels * (height + width) * keys
    counts["elementwise"] += 2 * pairs * heads
  elif layer.positions == "absolute":
    counts["elementwise"] += pixels * channels
  if layer.strides > 1:
    counts["pool"] += (2 * layer.strides - 1) ** 2 * pixels * channels
  return LayerOps(parameters=parameters, op_counts=counts)
