"""Rules of the attention stem (paper Sec. 3.2, App. A.1) and of its pooling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sasa_tf.analysis.cost.attention_rules import position_counts
from sasa_tf.analysis.cost.keras_rules import pooling
from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import AttentionStemBase, StemPooling2DBase

layer_rule(StemPooling2DBase)(pooling)


@layer_rule(AttentionStemBase)
def attention_stem(
  layer: AttentionStemBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts M value projections per pixel and their mixture, as in App. A.1.

  The layer itself first mixes the M matrices into one per position of the block, which takes fewer
  operations. Computations on weights alone (the mixture weights p) are not counted.
  """
  ((_, height, width, channels),) = inputs
  filters, heads, block = layer.filters, layer.num_heads, layer.block_size
  pixels, projection = height * width, channels * filters
  neighbors = pixels * block**2
  parameters = 2 * projection  # query and key
  counts = Counter(
    multiply_add=2 * pixels * projection + 2 * neighbors * filters,  # and q.k, a.v
    softmax=neighbors * heads,
    stem_element=elements(outputs),
  )
  if layer.variant == "mixture":
    mixtures = layer.num_mixtures
    parameters += mixtures * projection + (2 * block + mixtures) * layer.embedding_dim
    counts["multiply_add"] += pixels * mixtures * (projection + filters)
  elif layer.variant == "standalone":
    parameters += projection + 2 * (2 * block - 1) * (layer.head_dim // 2)
    counts["multiply_add"] += pixels * projection
    counts += position_counts(neighbors, filters, heads)
  else:
    parameters += block**2 * projection
    counts["multiply_add"] += neighbors * projection
  if layer.scale != 1:
    counts["elementwise"] += pixels * filters
  return LayerOps(parameters=parameters, op_counts=counts)
