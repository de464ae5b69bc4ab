"""What models cost, in closed form."""

# Importing a file of rules enters them.
from sasa_tf.analysis.cost import (
  attention_rules,
  baseline_rules,
  keras_rules,
  operator_rules,
  pyramid_rules,
  stem_rules,
)
from sasa_tf.analysis.cost.conventions import CONVENTIONS, KINDS, Convention, find_convention
from sasa_tf.analysis.cost.graph_cost import cost_model
from sasa_tf.analysis.cost.layer_ops import FREE, Facts, elements
from sasa_tf.analysis.cost.model_cost import LayerCost, ModelCost
from sasa_tf.analysis.cost.registry import layer_rule

__all__ = [
  "CONVENTIONS",
  "FREE",
  "KINDS",
  "Convention",
  "Facts",
  "LayerCost",
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
