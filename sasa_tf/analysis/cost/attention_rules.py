"""Rule of local self-attention (paper Sec. 3.1, Eq. 3), independent of the implementation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape, activation_counts, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import LocalSelfAttention2DBase


def position_counts(neighbors: int, filters: int, heads: int) -> Counter[str]:
  """Returns the operations of q.r in attention with q.k.

  Args:
    neighbors: number of pairs of a pixel and a neighbor.
    filters: number of output channels.
    heads: N.
  """
  return Counter(key_position=neighbors * filters, key_position_sum=neighbors * heads)


def _position_only_counts(
  pixels: int, kernel_size: tuple[int, int], filters: int, heads: int
) -> Counter[str]:
  """Returns the operations of q.r without q.k (paper Table 6).

  Without keys, q.r can be computed once per row and column of the window instead of once per
  neighbor. Both are returned, as the conventions count different ones.
  """
  rows, columns = kernel_size
  neighbors = pixels * rows * columns
  return Counter(
    position_only=neighbors * filters,
    axis_position=pixels * (rows + columns) * (filters // 2),
    axis_position_sum=neighbors * heads,
  )


@layer_rule(LocalSelfAttention2DBase)
def local_self_attention(
  layer: LocalSelfAttention2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts the full window of Eq. 3 around each pixel, including the part outside the image."""
  ((_, height, width, channels),) = inputs
  rows, columns = layer.kernel_size
  filters, pixels = layer.filters, height * width
  neighbors = pixels * rows * columns
  projections = 3 if layer.content else 2
  products = 2 if layer.content else 1  # q.k and a.v
  parameters = projections * channels * filters
  counts = Counter(
    multiply_add=filters * (projections * channels * pixels + products * neighbors),
    softmax=neighbors * layer.num_heads,
  )
  counts.update(activation_counts(layer, outputs))
  if layer.positions == "relative":
    parameters += (rows + columns) * (layer.head_dim // 2)
    if layer.content:
      counts += position_counts(neighbors, filters, layer.num_heads)
    else:
      counts += _position_only_counts(pixels, layer.kernel_size, filters, layer.num_heads)
  elif layer.positions == "absolute":
    counts["elementwise"] += elements(inputs)
  if layer.query_bias is not None:
    biases = projections if layer.use_bias else 1
    parameters += biases * filters
    counts["elementwise"] += biases * pixels * filters
  if layer.scale != 1:
    counts["elementwise"] += pixels * filters
  if layer.strides > 1:
    counts["pool"] += pixels * filters
  return LayerOps(parameters=parameters, op_counts=counts)
