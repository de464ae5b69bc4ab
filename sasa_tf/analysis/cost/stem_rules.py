"""Rule of the attention inside of the stem's blocks (paper Sec. 3.2, App. A.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sasa_tf.analysis.cost.attention_rules import position_work
from sasa_tf.analysis.cost.layer_ops import Facts, Shape, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import AttentionStemBase


@layer_rule(AttentionStemBase)
def attention_stem(
  layer: AttentionStemBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Facts:
  """Counts M projections a pixel and their mixture, as App. A.1 writes the values.

  Mixing the M matrices into one for each place first, which our layer does, is less work; what is
  computed of weights alone (p of each place) counts as nothing.
  """
  ((_, height, width, channels),) = inputs
  filters, heads, block = layer.filters, layer.num_heads, layer.block_size
  pixels, projection = height * width, channels * filters
  neighbours = pixels * block**2
  parameters = 2 * projection  # query and key
  work = Counter(
    multiply_add=2 * pixels * projection + 2 * neighbours * filters,  # and q.k, a.v
    softmax=neighbours * heads,
    stem_element=elements(outputs),
  )
  if layer.variant == "mixture":
    mixtures = layer.num_mixtures
    parameters += mixtures * projection + (2 * block + mixtures) * layer.embedding_dim
    work["multiply_add"] += pixels * mixtures * (projection + filters)
  elif layer.variant == "standalone":
    parameters += projection + 2 * (2 * block - 1) * (layer.head_dim // 2)
    work["multiply_add"] += pixels * projection
    work += position_work(neighbours, filters, heads)
  else:
    parameters += block**2 * projection
    work["multiply_add"] += neighbours * projection
  if layer.scale != 1:
    work["elementwise"] += pixels * filters
  return Facts(parameters=parameters, work=work)
