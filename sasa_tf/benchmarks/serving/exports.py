"""The models to measure: exports of untrained networks, or those in given directories."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tf_keras
from official.core import config_definitions

from sasa_tf.benchmarks.serving.served_formats import (
  SERVED_FORMATS,
  STOCK_OF_KERNELS,
  ServedFormat,
)
from sasa_tf.benchmarks.workloads.candidates import ARCHITECTURES
from sasa_tf.errors import UserError
from sasa_tf.reporting.captured_output import hidden_output
from sasa_tf.serving.compiled_kernels.library_file import LIBRARY
from sasa_tf.serving.example_images import noise_images
from sasa_tf.serving.formats.format import ExportOptions, SavedModelOptions
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.formats.saved_model import METADATA
from sasa_tf.serving.model_description import describe_model
from sasa_tf.serving.restored_module import build_module
from sasa_tf.serving.verification.trained_model import TrainedModel
from sasa_tf.training import experiment

GPU_SIGNATURE_DTYPE = "bfloat16"
_EXPERIMENT = "sasa_resnet_imagenet"
_NUM_IMAGES = 4
_NUM_CALIBRATION_IMAGES = 16
_WEIGHTS_SEED = 0


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What the exported networks have in common.

  Attributes:
    model_id: ResNet depth.
    image_size: in pixels.
    width_multiplier: factor of all channels.
    num_heads: of the attention.
    kernel_size: of the attention window.
  """

  model_id: int = 50
  image_size: int = 224
  width_multiplier: float = 1.0
  num_heads: int = 8
  kernel_size: int = 7


@dataclasses.dataclass(frozen=True)
class ExportedModel:
  """A model to measure, or the reason why there is none.

  Attributes:
    candidate: name of the network, or of the directory.
    served: its format.
    path: file or directory; None if the export failed.
    error: why it failed, or None.
    batch_size: of a format with a model for each.
  """

  candidate: str
  served: ServedFormat
  path: pathlib.Path | None
  error: str | None = None
  batch_size: int | None = None

  @property
  def name(self) -> str:
    """Identifies the model among those that are measured together."""
    name = f"{self.candidate}@{self.served.name}"
    return name if self.batch_size is None else f"{name}{self.batch_size}"


@dataclasses.dataclass(frozen=True)
class Reference:
  """What the exports of a network must return.

  Attributes:
    images: float32 [B, H, W, 3], values from 0 to 255.
    outputs: of the network before the export, by name.
  """

  images: np.ndarray
  outputs: Mapping[str, np.ndarray]


def check_architectures(names: Sequence[str]) -> None:
  """Checks the candidates of the target serving.

  Raises:
    UserError: a name is unknown.
  """
  for name in names:
    if name not in ARCHITECTURES:
      raise UserError(
        f"{name!r} is not a candidate of the target serving; expected some of "
        f"{', '.join(ARCHITECTURES)}. Exported models select their implementation by --formats."
      )


def build_network(candidate: str, architecture: Architecture, batch_size: int | None = None) -> Any:
  """Returns the export module of a network with random weights, which are always the same.

  Args:
    candidate: a key of `ARCHITECTURES`.
    architecture: depth, sizes and attention.
    batch_size: None for a dynamic one.

  Raises:
    UserError: there is no such network.
  """
  tf_keras.utils.set_random_seed(_WEIGHTS_SEED)
  module = build_module(_configuration(candidate, architecture), batch_size)
  random = np.random.default_rng(_WEIGHTS_SEED)
  for weight in module.model.weights:
    if "gamma" in weight.name:  # zero in the last normalization of a block
      weight.assign(random.uniform(0.5, 1, weight.shape))
  return module


def _configuration(
  candidate: str, architecture: Architecture
) -> config_definitions.ExperimentConfig:
  attention = {"stem": "conv", **ARCHITECTURES[candidate]}
  changes = {
    "runtime": {"mixed_precision_dtype": GPU_SIGNATURE_DTYPE},  # other signatures are in float32
    "task": {
      "model": {
        "input_size": [architecture.image_size, architecture.image_size, 3],
        "backbone": {
          "sasa_resnet": {
            "model_id": architecture.model_id,
            "width_multiplier": architecture.width_multiplier,
            "num_heads": architecture.num_heads,
            "kernel_size": architecture.kernel_size,
            **attention,
          }
        },
      }
    },
  }
  return experiment.load_experiment(_EXPERIMENT, params_override=json.dumps(changes), mode="export")


def reference_of(module: Any) -> Reference:
  """Returns images, and the outputs of a network for them in the implementation that trains."""
  trained = TrainedModel(module, noise_images(module.prepared_size, _NUM_IMAGES), None)
  with hidden_output():  # XLA reports its first program
    ((_, images),) = trained.inputs("prepared")
    return Reference(images, trained.outputs("prepared"))


def export(
  candidate: str, module: Any, served: ServedFormat, folder: pathlib.Path
) -> ExportedModel:
  """Writes a network in a format, to a directory of its own.

  Args:
    candidate: name of the network.
    module: from `build_network`.
    served: format and options.
    folder: existing directory.

  Returns:
    The exported model; one with an error if the network cannot be exported.
  """
  export_format = FORMATS[served.export_format]
  batch_size = module.batch_size if served.fixed_batch else None
  kind = served.name.replace("/", "_")
  path = folder / candidate / f"{kind}{batch_size or ''}" / export_format.file_name
  path.parent.mkdir(parents=True)
  if export_format.is_directory:
    path.mkdir()
  options = ExportOptions(
    describe_model(module, None),
    SavedModelOptions(
      input_type="prepared",
      signatures=("prepared",),
      warmup_requests=0,
      cpu_kernels=served.cpu_kernels,
      gpu_kernels=served.gpu_kernels,
      # Of networks without attention, XLA compiles the signature all the same.
      require_gpu_kernels=False,
      report=lambda _: None,
    ),
    quantize=served.quantize,
    calibration_images=_calibration_images(module) if served.quantize == "int8" else None,
  )
  try:
    with hidden_output():
      export_format.write(module, path, options)
  except UserError as error:
    return ExportedModel(candidate, served, None, str(error), batch_size)
  return ExportedModel(candidate, served, path, None, batch_size)


def _calibration_images(module: Any) -> np.ndarray:
  images = noise_images(module.prepared_size, _NUM_CALIBRATION_IMAGES)
  ((_, prepared),) = TrainedModel(module, images, None).inputs("prepared")
  return prepared


def find_exports(
  directories: Sequence[str], served_formats: Sequence[ServedFormat]
) -> list[ExportedModel]:
  """Returns the models in directories that the export program wrote.

  Args:
    directories: values of its --output_dir.
    served_formats: that are measured, if they are there.

  Raises:
    UserError: a directory does not exist, or holds no model of these formats.
  """
  found = []
  for directory in directories:
    folder = pathlib.Path(directory)
    if not folder.is_dir():
      raise UserError(
        f"--exports={directory}: no such directory. Expected an --output_dir of `python -m "
        "sasa_tf.bin.export`."
      )
    models = list(_models_in(folder, served_formats, _name_in(directory, directories)))
    if not models:
      files = dict.fromkeys(FORMATS[each.export_format].file_name for each in served_formats)
      raise UserError(
        f"--exports={directory} holds no exported model of these formats: expected "
        f"{', '.join(files)}. Pass an --output_dir of `python -m sasa_tf.bin.export`, or other "
        "--formats."
      )
    found += models
  return found


def _name_in(directory: str, directories: Sequence[str]) -> str:
  """Returns the last part of a path, or the path if another one ends so too."""
  names = [pathlib.Path(each).resolve().name for each in directories]
  name = pathlib.Path(directory).resolve().name
  return name if names.count(name) == 1 else directory.rstrip("/")


def _models_in(
  folder: pathlib.Path, served_formats: Sequence[ServedFormat], name: str
) -> Iterator[ExportedModel]:
  for served in served_formats:
    path = folder / FORMATS[served.export_format].file_name
    if served.quantize != "none" or served.fixed_batch or not path.exists():
      continue  # they have the names of the others
    has_library = (path / LIBRARY).exists()
    if served.cpu_kernels and not has_library:
      continue
    if served.gpu_kernels != "none" and not _has_gpu_signature(path):
      continue
    if served is SERVED_FORMATS["saved_model"] and has_library:
      yield ExportedModel(name, STOCK_OF_KERNELS, path)
    else:
      yield ExportedModel(name, served, path)


def _has_gpu_signature(saved_model: pathlib.Path) -> bool:
  try:
    return "gpu" in json.loads((saved_model / METADATA).read_text(encoding="utf-8"))
  except (OSError, RecursionError, TypeError, ValueError):
    return False
