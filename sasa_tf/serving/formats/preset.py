"""Presets, for `from_preset` in Python and --preset of the programs."""

from __future__ import annotations

import json
import math
import pathlib
from typing import TYPE_CHECKING, Any

from sasa_tf.errors import UserError
from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions

if TYPE_CHECKING:
  from official.vision.serving import export_base


def write(module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions) -> str:
  """Writes the trained model as a preset, see `sasa_tf.modeling.presets.Preset`.

  Args:
    module: export module with restored weights.
    path: empty directory.
    options: of the export.

  Returns:
    The number of weights, and the largest difference to those of the trained model.

  Raises:
    UserError: the model has parts that are not of this library, or a weight cannot be stored.
  """
  from sasa_tf.modeling.presets import find_preset
  from sasa_tf.modeling.presets.preset_writing import write_preset
  from sasa_tf.serving.keras_model import check_parts
  from sasa_tf.serving.model_config import used_config
  from sasa_tf.serving.named_variables import named_variables

  is_detector = options.metadata.task == "detection"
  model = module.params.task.model
  check_parts(model, is_detector, "preset")
  weights = {name: each.numpy() for name, each in named_variables(module.model).items()}
  write_preset(
    path,
    class_name="RetinaNet" if is_detector else "SASAResNetClassifier",
    config=json.loads(json.dumps(used_config(model))) if is_detector else _arguments(module),
    weights=weights,
    labels=options.metadata.class_names,
    preprocessing=_detector_input(module) if is_detector else _classifier_input(module),
    dtype="float16" if options.quantize == "float16" else "float32",
  )
  written = find_preset(path).read_weights()
  change = max(float(abs(value - written[name]).max()) for name, value in weights.items())
  if not change < math.inf:
    raise UserError(
      "a weight is beyond the range of float16, or no number. Export without --quantize=float16."
    )
  return f"{len(weights)} weights, rounded by at most {change:.2g}"


def _arguments(module: Any) -> dict[str, Any]:
  """Returns the arguments of `SASAResNetClassifier`."""
  from sasa_tf.modeling.builders.backbones import sasa_resnet_arguments

  params = module.params
  if params.task.train_data.is_multilabel:
    raise UserError(
      "--format=preset writes classifiers of one label per image; received "
      "task.train_data.is_multilabel=True. Export another format, for example saved_model."
    )
  model = params.task.model
  return {
    "num_classes": model.num_classes,
    "dropout_rate": model.dropout_rate,
    **sasa_resnet_arguments(model.backbone, model.norm_activation),
    "implementation": "auto",  # that of the training may not exist elsewhere
    "input_shape": [*module.prepared_size, 3],
  }


def _classifier_input(module: Any) -> dict[str, Any]:
  data = module.params.task.validation_data
  return {
    "image_size": list(module.prepared_size),
    "crop_fraction": data.center_crop_fraction if data.aug_crop else None,
    "resize_method": data.tf_resize_method,
  }


def _detector_input(module: Any) -> dict[str, Any]:
  parser = module.params.task.validation_data.parser
  return {
    "image_size": list(module.params.task.model.input_size[:2]),
    "keep_aspect_ratio": parser.keep_aspect_ratio,
    "pad": parser.pad,
  }


FORMAT = ExportFormat(
  name="preset",
  file_name="preset",
  write=write,
  description="preset, for `from_preset` in Python and --preset of the programs",
  layout=DirectoryLayout(
    "a preset of sasa_tf",
    required=("config.json", "weights.npz"),
    files=r"config\.json|weights\.npz|README\.md",
    directories="",
  ),
  quantizations=("none", "float16"),
)
