"""The variables of Model Garden's models by name, as presets hold them."""

from __future__ import annotations

from typing import Any

import tf_keras
from official.vision.modeling import retinanet_model

from sasa_tf.modeling.weights import layer_weights, named_weights


def named_variables(trained: tf_keras.Model) -> dict[str, Any]:
  """Returns {name: variable} of a trained model, including those that are not trained.

  Args:
    trained: Model Garden's `ClassificationModel` of a `SASAResNet`, whose names are those of
      `SASAResNetClassifier`; or `RetinaNetModel`, whose names begin with "backbone/", "decoder/" or
      "head/".
  """
  if isinstance(trained, retinanet_model.RetinaNetModel):
    parts = {"backbone": trained.backbone, "decoder": trained.decoder, "head": trained.head.head}
    return {
      f"{part}/{name}": variable
      for part, model in parts.items()
      for name, variable in named_weights(model).items()
    }
  head = layer_weights(trained.layers[-1])
  classifier = {f"classifier/{name}": variable for name, variable in head.items()}
  return named_weights(trained.backbone) | classifier
