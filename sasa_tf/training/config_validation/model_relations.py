"""Relations between fields of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sasa_tf.configs.backbones import Backbone
from sasa_tf.layers.checks import head_width
from sasa_tf.modeling.baselines import check_baseline
from sasa_tf.modeling.resnet import WIDTHS, scaled_width
from sasa_tf.training.config_validation.problems import Problem, show
from sasa_tf.training.config_validation.use import Use

_MODEL = "task.model"
_SASA = f"{_MODEL}.backbone.sasa_resnet"
# Levels of the backbones that are ResNets. Other backbones choose theirs.
_RESNET_LEVELS = (2, 3, 4, 5)
_MODEL_GARDEN_ACTIVATIONS = ("hard_swish", "simple_swish", "identity")
_RESNETS = ("sasa_resnet", "resnet")


def _inputs(use: Use) -> Iterator[Problem]:
  if not (use.builds_model and (use.is_classification or use.is_detection)):
    return
  size, classes = use.model.input_size, use.model.num_classes
  path = f"{_MODEL}.input_size"
  if len(size) != 3 or size[2] != 3:
    yield Problem(
      f"{path}={show(size)}: expected height, width and 3 channels, because images are decoded as "
      "RGB. Set it to, for example, [224,224,3].",
      (path,),
    )
  minimum = 2 if use.is_detection else 1
  if classes < minimum:
    background = ", because class 0 is the background" if use.is_detection else ""
    yield Problem(
      f"{_MODEL}.num_classes={classes}: expected at least {minimum}{background}. Set the number of "
      f"classes of the data{' + 1' if use.is_detection else ''}.",
      (f"{_MODEL}.num_classes",),
    )


def _sasa_resnet(use: Use) -> Iterator[Problem]:
  backbone = getattr(use.model, "backbone", None)
  if not isinstance(backbone, Backbone) or backbone.type != "sasa_resnet":
    return
  config = backbone.sasa_resnet
  if not config.content and config.positions != "relative" and config.attention_groups:
    yield Problem(
      f"{_SASA}.content=false: expected {_SASA}.positions=relative, because without content the "
      f"attention depends on the relative positions only; received positions={config.positions}.",
      (f"{_SASA}.content", f"{_SASA}.positions"),
    )
  try:
    check_baseline(config.baseline, config.attention_groups)
  except ValueError as error:
    yield Problem(
      f"{_SASA}.baseline={config.baseline}: {error}",
      (f"{_SASA}.baseline", f"{_SASA}.attention_groups"),
    )


def _activation(use: Use) -> Iterator[Problem]:
  """Checks that Keras has the activation if sasa_tf's models use it."""
  backbone = getattr(use.model, "backbone", None)
  if not isinstance(backbone, Backbone):
    return
  if not (use.is_detection or backbone.type == "sasa_resnet"):
    return
  activation = use.model.norm_activation.activation
  if activation in _MODEL_GARDEN_ACTIVATIONS:
    yield Problem(
      f"{_MODEL}.norm_activation.activation={activation}: expected an activation of Keras, such as "
      "relu or swish; only Model Garden's backbones support this one.",
      (f"{_MODEL}.norm_activation.activation",),
    )


def _detector_sections(use: Use) -> dict[str, Any]:
  """Returns {path: section} of the detection head and of a pyramid of this library."""
  sections = {f"{_MODEL}.head": use.model.head}
  if use.model.decoder.type == "sasa_fpn":
    sections[f"{_MODEL}.decoder.sasa_fpn"] = use.model.decoder.sasa_fpn
  return sections


def _widths(use: Use) -> Iterator[Problem]:
  """Checks that the heads of pyramid and detection head split their channels."""
  if not use.is_detection:
    return
  for path, config in _detector_sections(use).items():
    if getattr(config, "spatial", None) != "attention":
      continue
    paths = (f"{path}.num_filters", f"{path}.num_heads", f"{path}.positions")
    received = f"{path}.num_filters={config.num_filters}, {path}.num_heads={config.num_heads}"
    relative = config.positions == "relative"
    unit = config.num_heads * (2 if relative else 1)
    try:
      width = head_width(config.num_filters, config.num_heads)
    except ValueError:
      width = 0
    if width == 0 or (relative and width % 2):
      nearest = max(1, round(config.num_filters / unit)) * unit
      even = ", and an even width of each head for positions=relative" if relative else ""
      yield Problem(
        f"{received}: expected num_filters to be a multiple of {unit} (num_heads{even}). Set "
        f"num_filters to {nearest}.",
        paths,
      )


def _frozen_backbone(use: Use) -> Iterator[Problem]:
  task = use.params.task
  if use.trains and getattr(task, "freeze_backbone", False) and not task.init_checkpoint:
    yield Problem(
      "task.freeze_backbone=true: expected task.init_checkpoint with trained weights; without it, "
      "the backbone would keep its random ones.",
      ("task.freeze_backbone", "task.init_checkpoint"),
    )


def _locality(use: Use) -> Iterator[Problem]:
  """Checks that heads with `locality_strength` have the features that express it."""
  widths: dict[str, tuple[Any, int]] = {}
  backbone = getattr(use.model, "backbone", None)
  if isinstance(backbone, Backbone) and backbone.type == "sasa_resnet":
    config = backbone.sasa_resnet
    if config.attention_groups:
      width = WIDTHS[min(config.attention_groups) - 1]
      filters = scaled_width(width, config.width_multiplier, 2 * config.num_heads)
      widths[_SASA] = (config, filters)
  if use.is_detection:
    for path, config in _detector_sections(use).items():
      if getattr(config, "spatial", None) == "attention":
        widths[path] = (config, config.num_filters)
  for path, (config, filters) in widths.items():
    head_dim = filters // config.num_heads
    if config.locality_strength and (config.positions != "relative" or head_dim < 4):
      yield Problem(
        f"{path}.locality_strength={config.locality_strength}: expected positions=relative and at "
        f"least 4 channels in each head; received positions={config.positions} and "
        f"{config.num_heads} heads of {head_dim} channels. Set fewer heads, or 0.",
        (f"{path}.locality_strength", f"{path}.num_heads", f"{path}.positions"),
      )


def _levels(use: Use) -> Iterator[Problem]:
  if not use.is_detection or not use.builds_model:
    return
  model = use.model
  low, high = model.min_level, model.max_level
  paths = (f"{_MODEL}.min_level", f"{_MODEL}.max_level")
  received = f"{paths[0]}={low}, {paths[1]}={high}"
  if low > high:
    yield Problem(f"{received}: expected min_level to be at most max_level.", paths)
    return
  if model.backbone.type in _RESNETS:
    first, last = _RESNET_LEVELS[0], _RESNET_LEVELS[-1]
    if model.decoder.type == "identity" and (low, high) != (first, last):
      yield Problem(
        f"{received}: expected {first} and {last}, the levels of {model.backbone.type}, with "
        f"{_MODEL}.decoder.type=identity.",
        (*paths, f"{_MODEL}.decoder.type"),
      )
    elif not first <= low <= last:
      yield Problem(
        f"{received}: expected min_level to be a level of {model.backbone.type}, {first} to "
        f"{last}.",
        paths,
      )
  stride = 2**high
  size = list(model.input_size)[:2]
  if len(size) == 2 and any(side % stride for side in size):
    nearest = [max(1, round(side / stride)) * stride for side in size]
    yield Problem(
      f"{_MODEL}.input_size={show(model.input_size)}: expected a height and a width that are "
      f"multiples of 2^max_level = {stride}, for the pyramid. Set "
      f"[{nearest[0]},{nearest[1]},3], or lower task.model.max_level.",
      (f"{_MODEL}.input_size", paths[1]),
    )


def _detection_strides(use: Use) -> Iterator[Problem]:
  if not use.is_detection or use.model.backbone.type != "sasa_resnet":
    return
  config = use.model.backbone.sasa_resnet
  if config.stem == "conv_small" or list(config.group_strides) != [1, 2, 2, 2]:
    yield Problem(
      f"{_SASA}.stem={config.stem}, {_SASA}.group_strides={show(config.group_strides)}: expected "
      "stem=conv or attention and group_strides=[1,2,2,2] for detection, because level n of the "
      "pyramid has 1 / 2^n of the resolution of the image.",
      (f"{_SASA}.stem", f"{_SASA}.group_strides"),
    )


RELATIONS = (
  _inputs,
  _sasa_resnet,
  _activation,
  _widths,
  _frozen_backbone,
  _locality,
  _levels,
  _detection_strides,
)
