"""Rule of local self-attention (paper Sec. 3.1, Eq. 3), whatever implementation runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sasa_tf.analysis.cost.layer_ops import Facts, Shape, activation_work, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import LocalSelfAttention2DBase


def position_work(neighbours: int, filters: int, heads: int) -> Counter[str]:
  """Returns the work of q.r beside q.k for so many pairs of a pixel and a neighbour."""
  return Counter(key_position=neighbours * filters, key_position_sum=neighbours * heads)


def _lone_position_work(
  pixels: int, kernel_size: tuple[int, int], filters: int, heads: int
) -> Counter[str]:
  """Returns the work of q.r without q.k (paper Table 6).

  Without keys, q.r may be one product a row and one a column of the window instead of one a
  neighbour; the conventions differ in which of both they count.
  """
  rows, columns = kernel_size
  neighbours = pixels * rows * columns
  return Counter(
    lone_position=neighbours * filters,
    axis_position=pixels * (rows + columns) * (filters // 2),
    axis_position_sum=neighbours * heads,
  )


@layer_rule(LocalSelfAttention2DBase)
def local_self_attention(
  layer: LocalSelfAttention2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Facts:
  """Counts the whole window of Eq. 3 around each pixel, also where it leaves the image."""
  ((_, height, width, channels),) = inputs
  rows, columns = layer.kernel_size
  filters, pixels = layer.filters, height * width
  neighbours = pixels * rows * columns
  projections = 3 if layer.content else 2
  products = 2 if layer.content else 1  # q.k and a.v
  parameters = projections * channels * filters
  work = Counter(
    multiply_add=filters * (projections * channels * pixels + products * neighbours),
    softmax=neighbours * layer.num_heads,
  )
  work.update(activation_work(layer, outputs))
  if layer.positions == "relative":
    parameters += (rows + columns) * (layer.head_dim // 2)
    if layer.content:
      work += position_work(neighbours, filters, layer.num_heads)
    else:
      work += _lone_position_work(pixels, layer.kernel_size, filters, layer.num_heads)
  elif layer.positions == "absolute":
    work["elementwise"] += elements(inputs)
  if layer.use_bias:
    parameters += projections * filters
    work["elementwise"] += projections * pixels * filters
  if layer.scale != 1:
    work["elementwise"] += pixels * filters
  if layer.strides > 1:
    work["pool"] += pixels * filters
  return Facts(parameters=parameters, work=work)
