"""Assigns the weights of a convolutional ResNet to a `SASAResNet` where the shapes agree."""

from __future__ import annotations

from typing import Any, NamedTuple

from sasa_tf.errors import UserError
from sasa_tf.modeling.weights import assign_weights, weight_values
from sasa_tf.pretrained.resnet_weights import ResNetWeights

_MAX_SHOWN = 3


class Transfer(NamedTuple):
  """What was assigned.

  Attributes:
    copied: names of the weights with the values of the source.
    initialized: layers whose weights keep their initial values: attention instead of a
      convolution, and a classifier that the source does not have.
    unused: names of the weights of the source that the model does not have.
  """

  copied: list[str]
  initialized: list[str]
  unused: list[str]


def transfer_weights(weights: ResNetWeights, model: Any) -> Transfer:
  """Assigns weights to the stem, the convolutions, the norms and the classifier of a model.

  Attention layers take the place of 3x3 convolutions, or of the stem's 7x7 convolution, and keep
  their initial weights. The model should have the `norm_epsilon` of the weights.

  Args:
    weights: of a convolutional ResNet of the same depth.
    model: a built `SASAResNet` or `SASAResNetClassifier` of either Keras version.

  Returns:
    What was assigned.

  Raises:
    UserError: the model has another depth, width or number of classes. Nothing is assigned.
  """
  current = weight_values(model)
  model_id = model.get_config()["model_id"]
  if model_id != weights.model_id:
    raise UserError(
      f"the weights are those of a ResNet-{weights.model_id}, but the model has model_id="
      f"{model_id}. Use model_id={weights.model_id}."
    )
  values, copied, kept, problems = dict(current), [], {}, []
  for name, value in current.items():
    layer = name.rpartition("/")[0]
    found = weights.values.get(name)
    if found is not None and found.shape == value.shape:
      values[name] = found
      copied.append(name)
    elif layer == "stem" or layer.endswith("_spatial") or found is None:
      kept[layer] = None
    else:
      problems.append(f"{name} has shape {found.shape} (expected {value.shape})")
  if problems:
    more = len(problems) - _MAX_SHOWN
    raise UserError(
      f"the weights of {weights.source} do not fit the model {model.name!r}: "
      f"{'; '.join(problems[:_MAX_SHOWN])}{f'; and {more} more' if more > 0 else ''}. Use "
      "width_multiplier=1 and the number of classes of the weights, or a backbone without "
      "classifier."
    )
  if not copied:
    raise UserError(f"the model {model.name!r} has no weight of {weights.source}.")
  assign_weights(model, values)
  unused = sorted(name for name in weights.values if name not in copied)
  return Transfer(copied, list(kept), unused)
