"""Rule of the top-down step of feature pyramids."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.analysis.cost.layer_ops import Facts, Shape, elements
from sasa_tf.analysis.cost.registry import layer_rule
from sasa_tf.layers import UpsampleAdd2DBase


@layer_rule(UpsampleAdd2DBase)
def upsample_add(
  layer: UpsampleAdd2DBase, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Facts:
  """Repetition is free of arithmetic, the addition is not."""
  del layer, inputs
  return Facts(work={"elementwise": elements(outputs)})
