"""Cost of models, attention maps, the paper's tables, and compilation for TPUs."""

from sasa_tf import extras

extras.require_tensorflow_backend(__name__)

from sasa_tf.analysis.attention import attention_maps, attention_rollout
from sasa_tf.analysis.cost import (
  CONVENTIONS,
  Convention,
  LayerCost,
  LayerOps,
  ModelCost,
  cost_model,
  layer_rule,
)

__all__ = [
  "CONVENTIONS",
  "Convention",
  "LayerCost",
  "LayerOps",
  "ModelCost",
  "attention_maps",
  "attention_rollout",
  "cost_model",
  "layer_rule",
]
