"""Rules of the layers that the paper argues against: attention beside convolutions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sasa_tf.analysis.cost.layer_ops import Facts, Shape, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import AttentionAugmentedConv2DBase, NonLocal2DBase, SqueezeExcitation2DBase


@layer_rule(SqueezeExcitation2DBase)
def squeeze_excitation(
  layer: SqueezeExcitation2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Facts:
  """A mean, two dense layers on it, and a product with each pixel."""
  channels = inputs[0][-1]
  squeezed = max(1, channels // layer.ratio)
  return Facts(
    parameters=2 * channels * squeezed + squeezed + channels,
    work={
      "multiply_add": 2 * channels * squeezed,
      "elementwise": squeezed + channels + elements(outputs),
      "activate": squeezed + channels,
      "pool": elements(inputs),
    },
  )


@layer_rule(NonLocal2DBase)
def non_local(layer: NonLocal2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Facts:
  """Global attention of one head, batch norm, and the addition of both."""
  ((_, height, width, channels),) = inputs
  inner, pixels, keys = layer.inner_filters, height * width, height * width
  work = Counter(normalize=elements(outputs), elementwise=elements(outputs))
  if layer.subsample:
    keys = math.ceil(height / 2) * math.ceil(width / 2)
    work["pool"] += 2 * 4 * keys * inner
  work["multiply_add"] += 4 * pixels * channels * inner + 2 * pixels * keys * inner
  work["softmax"] += pixels * keys
  if layer.scale != 1:
    work["elementwise"] += pixels * inner
  return Facts(parameters=4 * channels * inner + 2 * channels, statistics=2 * channels, work=work)


@layer_rule(AttentionAugmentedConv2DBase)
def attention_augmented(
  layer: AttentionAugmentedConv2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Facts:
  """A convolution and, at the output's resolution, global attention."""
  channels = inputs[0][-1]
  ((_, height, width, filters),) = outputs
  keys, values, heads = layer.key_filters, layer.value_filters, layer.num_heads
  pixels, pairs = height * width, (height * width) ** 2
  kernels = layer.kernel_size**2 * channels * (filters - values)
  kernels += channels * (2 * keys + values) + values**2
  parameters = kernels
  work = Counter(
    multiply_add=pixels * kernels + pairs * (keys + values),
    softmax=pairs * heads,
    elementwise=pixels * keys,  # the query's scale
  )
  if layer.positions == "relative":
    # The embeddings are as many as the map's offsets, so q.r is taken row by row and column by
    # column in every implementation.
    parameters += (2 * height - 1 + 2 * width - 1) * (keys // heads)
    work["multiply_add"] += pixels * (height + width) * keys
    work["elementwise"] += 2 * pairs * heads
  elif layer.positions == "absolute":
    work["elementwise"] += pixels * channels
  if layer.strides > 1:
    work["pool"] += (2 * layer.strides - 1) ** 2 * pixels * channels
  return Facts(parameters=parameters, work=work)
