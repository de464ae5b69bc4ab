"""Parameters, FLOPs and bytes of models, in closed form."""

# Importing a module of rules registers them.
from sasa_tf.analysis.cost import (
  attention_rules,
  baseline_rules,
  keras_rules,
  operator_rules,
  pyramid_rules,
  stem_rules,
)
from sasa_tf.analysis.cost.conventions import CONVENTIONS, OP_KINDS, Convention, find_convention
from sasa_tf.analysis.cost.graph_cost import cost_model
from sasa_tf.analysis.cost.layer_ops import FREE, LayerOps, elements
from sasa_tf.analysis.cost.model_cost import LayerCost, ModelCost
from sasa_tf.analysis.cost.registry import layer_rule

__all__ = [
  "CONVENTIONS",
  "FREE",
  "OP_KINDS",
  "Convention",
  "LayerCost",
  "LayerOps",
  "ModelCost",
  "attention_rules",
  "baseline_rules",
  "cost_model",
  "elements",
  "find_convention",
  "keras_rules",
  "layer_rule",
  "operator_rules",
  "pyramid_rules",
  "stem_rules",
]
