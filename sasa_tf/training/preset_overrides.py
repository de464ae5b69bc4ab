"""The experiment that builds the model of a preset."""

from __future__ import annotations

from typing import Any

from sasa_tf.configs import backbones
from sasa_tf.errors import UserError
from sasa_tf.modeling.presets import Preset

_NO_DATA = {"tfds_name": "", "input_path": ""}
# Arguments of SASAResNetClassifier that Model Garden's models do not have, with the only value.
_FIXED = {"classifier_activation": "linear", "pooling": "avg"}
_NORM = ("activation", "use_sync_bn", "norm_momentum", "norm_epsilon")


def experiment_of(preset: Preset) -> tuple[str, dict[str, Any]]:
  """Returns the name of an experiment and overrides with which it has the model of a preset.

  Args:
    preset: of a `SASAResNetClassifier` or a `RetinaNet`.

  Raises:
    UserError: the preset is that of another model, or Model Garden cannot build it.
  """
  builders = {"SASAResNetClassifier": _classifier, "RetinaNet": _detector}
  if preset.class_name not in builders:
    raise UserError(
      f"the preset {preset.path} is of the class {preset.class_name}; expected "
      f"{' or '.join(builders)}. Backbones are loaded in Python, with from_preset."
    )
  return builders[preset.class_name](preset)


def _classifier(preset: Preset) -> tuple[str, dict[str, Any]]:
  config = dict(preset.config)
  for name, value in _FIXED.items():
    if config.pop(name, value) != value:
      raise UserError(
        f"the preset {preset.path} has {name}={preset.config[name]!r}; programs expect {value!r}. "
        f"Load it in Python, with from_preset, or save it again with {name}={value!r}."
      )
  size = _image_size(preset, config.pop("input_shape", (None, None, 3)))
  crop = preset.preprocessing.get("crop_fraction", 1.0)
  known = backbones.SASAResNet().as_dict().keys()
  model = {
    "num_classes": config.pop("num_classes", None),
    "input_size": size,
    "dropout_rate": config.pop("dropout_rate", 0.0),
    "norm_activation": {name: config.pop(name) for name in _NORM if name in config},
    "backbone": {
      "type": "sasa_resnet",
      "sasa_resnet": {key: value for key, value in config.items() if key in known},
    },
  }
  unknown = config.keys() - known
  if unknown:
    raise UserError(
      f"the preset {preset.path} has arguments that this version does not know: "
      f"{', '.join(sorted(unknown))}. Update sasa_tf."
    )
  validation = {**_NO_DATA, "aug_crop": crop is not None}
  if crop is not None:
    validation["center_crop_fraction"] = crop
  if "resize_method" in preset.preprocessing:
    validation["tf_resize_method"] = preset.preprocessing["resize_method"]
  task = {"model": model, "train_data": _NO_DATA, "validation_data": validation}
  return "sasa_resnet_imagenet", {"task": task}


def _detector(preset: Preset) -> tuple[str, dict[str, Any]]:
  parser = {
    key: preset.preprocessing[key]
    for key in ("keep_aspect_ratio", "pad")
    if key in preset.preprocessing
  }
  validation = {**_NO_DATA, "parser": parser}
  task = {"model": preset.config, "train_data": _NO_DATA, "validation_data": validation}
  return "retinanet_sasa_coco", {"task": {**task, "annotation_file": ""}}


def _image_size(preset: Preset, shape: Any) -> list[int]:
  size = preset.preprocessing.get("image_size")
  if not isinstance(size, list) or len(size) != 2 or None in size:
    raise UserError(
      f"the preset {preset.path} has no fixed image_size, but {size!r}. Save it from a model whose "
      "input_shape has a height and a width."
    )
  if not isinstance(shape, (list, tuple)) or len(shape) != 3:
    raise UserError(
      f"the preset {preset.path} has input_shape={shape!r}; expected [height, width, channels]. "
      "Save the preset again."
    )
  return [*size, shape[-1]]
