"""Rules of functions in a functional model, such as `x + y`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sasa_tf.analysis.cost import keras_rules
from sasa_tf.analysis.cost.layer_ops import LayerOps, Shape
from sasa_tf.analysis.cost.registry import layer_rule

# TensorFlow functions, which tf_keras wraps in one layer class, by the last part of their names.
_FUNCTIONS = {
  **dict.fromkeys(("add", "subtract", "multiply", "truediv", "maximum"), keras_rules.merge),
  **dict.fromkeys(("reshape", "identity", "stop_gradient", "expand_dims"), keras_rules.free),
  **dict.fromkeys(("concat", "transpose", "stack"), keras_rules.movement),
  "relu": keras_rules.non_linearity,
  "softmax": keras_rules.softmax,
}


@layer_rule("TFOpLambda")
def tensorflow_function(
  layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> LayerOps | None:
  """Returns the operations by the name of the function; None if it has no rule."""
  rule = _FUNCTIONS.get((layer.symbol or "").rpartition(".")[2])
  return rule and rule(layer, inputs, outputs)


# Operations of Keras 3. `Add`, `Multiply`, `Reshape`, `Softmax` ... share the names of layers.
layer_rule("Relu")(keras_rules.non_linearity)
layer_rule("ExpandDims", "Squeeze")(keras_rules.free)
layer_rule("Stack", "Transpose")(keras_rules.movement)
