"""Weights of a convolutional ResNet with the names of `SASAResNet`, from models of other sources.

The models are read by the names of their layers, so that nothing of their libraries is imported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sasa_tf.compat.bottleneck_blocks import bottleneck_layers, is_residual_block
from sasa_tf.errors import UserError
from sasa_tf.modeling.classifier import MEAN_RGB, STDDEV_RGB
from sasa_tf.modeling.resnet import BLOCKS
from sasa_tf.modeling.weights import weight_values

# The convolutions of a bottleneck block in the order of keras.applications.
_PARTS = ("shortcut", "reduce", "spatial", "expand")
_KERAS_LAYER = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)")
_KERAS_STEM = {"conv1_conv": "stem", "conv1_bn": "stem_norm", "predictions": "classifier"}
# What keras.applications subtracts from the channels of its input, which are blue, green and red.
_CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)


@dataclasses.dataclass(frozen=True)
class ResNetWeights:
  """Weights of a convolutional ResNet.

  Attributes:
    source: what they were read from, for messages.
    model_id: depth, as of `SASAResNet`.
    norm_epsilon: epsilon of its batch norms.
    values: {"layer/weight": value} with the names of `SASAResNet(attention_groups=())`, and
      "classifier/kernel" [C, classes] and "classifier/bias" [classes] if it has a classifier.
  """

  source: str
  model_id: int
  norm_epsilon: float
  values: dict[str, np.ndarray]

  @property
  def num_classes(self) -> int:
    """Classes of the classifier; 0 without one."""
    bias = self.values.get("classifier/bias")
    return 0 if bias is None else len(bias)


def from_keras_application(model: Any, *, caffe_inputs: bool = True) -> ResNetWeights:
  """Returns the weights of a `keras.applications.ResNet50` of either Keras version.

  The biases of its convolutions are subtracted from the moving means of the batch norms, which
  gives the same function. Its blocks halve the resolution in the first pointwise convolution
  instead of the spatial one, and its stem pads images of even size differently, so the network that
  takes the weights computes similar features, not the same ones.

  Args:
    model: with or without the classifier.
    caffe_inputs: whether the weights expect `keras.applications.resnet.preprocess_input`, as those
      of Keras do. The stem is then converted to RGB images normalized by `SASAResNetClassifier`.

  Raises:
    UserError: the model is another architecture, or has another depth.
  """
  named = weight_values(model)
  values: dict[str, np.ndarray] = {}
  for name, value in named.items():
    layer, _, weight = name.rpartition("/")
    renamed = _keras_application_layer(layer)
    if renamed is None:
      raise UserError(
        f"the model {model.name!r} has the layer {layer!r}, which keras.applications.ResNet50 does "
        "not have. Use a ResNet50 (not V2, and no other architecture)."
      )
    values[f"{renamed}/{weight}"] = value
  model_id = _depth(values, f"the model {model.name!r}")
  if caffe_inputs:
    kernel = values["stem/kernel"][:, :, ::-1]  # of RGB
    # (x * stddev + mean) - caffe_mean for the normalized x.
    offset = np.array(MEAN_RGB) - np.array(_CAFFE_MEAN_RGB)
    bias = np.einsum("ijco,c->o", kernel, offset).astype(kernel.dtype)
    values["stem/bias"] = values.get("stem/bias", 0) + bias
    values["stem/kernel"] = kernel * np.array(STDDEV_RGB, kernel.dtype)[:, None]
  for name in [name for name in values if name.endswith("/bias")]:
    layer = name.rpartition("/")[0]
    if layer != "classifier":
      values[f"{layer}_norm/moving_mean"] = values[f"{layer}_norm/moving_mean"] - values.pop(name)
  epsilon = float(model.get_layer("conv1_bn").epsilon)
  return ResNetWeights("keras.applications.ResNet50", model_id, epsilon, values)


def _keras_application_layer(name: str) -> str | None:
  """Returns the name of a layer in `SASAResNet`; None if ResNet50 has no such layer."""
  if name in _KERAS_STEM:
    return _KERAS_STEM[name]
  match = _KERAS_LAYER.fullmatch(name)
  if match is None:
    return None
  stage, block, part, kind = match.groups()
  norm = "_norm" if kind == "bn" else ""
  return f"group{int(stage) - 1}_block{block}_{_PARTS[int(part)]}{norm}"


def from_model_garden(
  backbone: Any, *, norm_epsilon: float, classifier: Mapping[str, np.ndarray] | None = None
) -> ResNetWeights:
  """Returns the weights of a Model Garden `ResNet` of bottleneck blocks.

  Args:
    backbone: Model Garden's `ResNet` with the stem "v0".
    norm_epsilon: epsilon of its batch norms.
    classifier: {"kernel": [C, classes], "bias": [classes]}, or None.

  Raises:
    UserError: the model has other blocks, another stem or another depth.
  """
  kinds = ("Conv2D", "BatchNormalization", "SyncBatchNormalization")
  stem = [layer for layer in backbone.layers if type(layer).__name__ in kinds]
  blocks = [bottleneck_layers(layer) for layer in backbone.layers if is_residual_block(layer)]
  bottlenecks = [block for block in blocks if block is not None]
  if len(stem) != 2 or len(bottlenecks) != len(blocks):
    raise UserError(
      f"the backbone {backbone.name!r} is no ResNet of bottleneck blocks with the stem v0, which "
      "can be converted. Use Model Garden's resnet with model_id 50 and stem_type v0."
    )
  values = _values("stem", stem[0].weights) | _values("stem_norm", stem[1].weights)
  stage, block = 0, 0
  for layers in bottlenecks:
    stage, block = (stage + 1, 1) if "shortcut" in layers else (stage, block + 1)
    for part, (convolution, norm) in layers.items():
      name = f"group{stage}_block{block}_{part}"
      values |= _values(name, convolution.weights) | _values(f"{name}_norm", norm.weights)
  source = f"the Model Garden backbone {backbone.name!r}"
  model_id = _depth(values, source)
  values |= {f"classifier/{name}": value for name, value in (classifier or {}).items()}
  return ResNetWeights("Model Garden's ResNet", model_id, norm_epsilon, values)


def _values(layer: str, weights: Iterable[Any]) -> dict[str, np.ndarray]:
  return {
    f"{layer}/{weight.name.partition(':')[0].rpartition('/')[2]}": np.asarray(weight)
    for weight in weights
  }


def _depth(values: Mapping[str, Any], source: str) -> int:
  """Returns the depth whose blocks the weights have."""
  blocks = [0, 0, 0, 0]
  for name in values:
    if match := re.match(r"group(\d)_block(\d+)_expand/", name):
      stage, block = map(int, match.groups())
      blocks[stage - 1] = max(blocks[stage - 1], block)
  for model_id, expected in BLOCKS.items():
    if tuple(blocks) == expected:
      return model_id
  known = ", ".join(f"{depth}: {list(count)}" for depth, count in BLOCKS.items())
  raise UserError(
    f"{source} has {blocks} bottleneck blocks in its stages, but SASAResNet has no such depth "
    f"({known}). Use a ResNet-50."
  )
