"""Rule of the top-down step of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import UpsampleAdd2DBase


@layer_rule(UpsampleAdd2DBase)
def upsample_add(
  layer: UpsampleAdd2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps:
  """Counts the addition. Nearest-neighbor upsampling takes no operations."""
  del layer, inputs
  return LayerOps(op_counts={"elementwise": elements(outputs)})
