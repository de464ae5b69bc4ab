"""What models cost, in closed form and measured."""

from sasa_tf.analysis.cost import (
  CONVENTIONS,
  Convention,
  LayerCost,
  ModelCost,
  cost_model,
  layer_rule,
)

__all__ = [
  "CONVENTIONS",
  "Convention",
  "LayerCost",
  "ModelCost",
  "cost_model",
  "layer_rule",
]
