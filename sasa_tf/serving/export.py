"""Exports a trained model to several formats at once."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.modeling.presets import Preset
from sasa_tf.outputs.replacement import replace_directory, replace_file
from sasa_tf.reporting.captured_output import hidden_output
from sasa_tf.serving.accuracy import measure_accuracy
from sasa_tf.serving.example_images import ExampleImages, prepared_images
from sasa_tf.serving.export_paths import check_export_paths
from sasa_tf.serving.exported import Exported, size_of, summary
from sasa_tf.serving.formats.format import (
  ExportFormat,
  ExportOptions,
  OnnxOptions,
  Quantization,
  SavedModelOptions,
)
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.model_card import write_model_card
from sasa_tf.serving.model_description import check_class_names, describe_model
from sasa_tf.serving.restored_module import restored_module
from sasa_tf.serving.runtimes.registry import RUNTIMES
from sasa_tf.serving.verification import Verifier
from sasa_tf.serving.verification.trained_model import TrainedModel

# Begins the messages of errors in functions that TensorFlow traces.
_IN_PYTHON = "in user code:"


def export_model(
  params: config_definitions.ExperimentConfig,
  *,
  weights: str | Preset,
  outputs: Mapping[str, str | os.PathLike],
  class_names: Sequence[str] | None,
  batch_size: int | None = None,
  input_image_size: Sequence[int] | None = None,
  saved_model: SavedModelOptions | None = None,
  onnx: OnnxOptions | None = None,
  quantize: Quantization = "none",
  images: ExampleImages | None = None,
  model_card: str | os.PathLike | None = None,
  overwrite: bool = False,
  progress: Callable[[str], None] = lambda _: None,
  hide_output: bool = False,
) -> list[Exported]:
  """Exports a classifier or detector.

  The outputs get their names when all of them are written and verified: after an error, none is
  changed, and no partial files remain.

  Args:
    params: experiment configuration of the training. Its task selects the export module.
    weights: checkpoint to restore, or a preset.
    outputs: {name of a format, a key of `FORMATS`: file or directory to create}.
    class_names: in label order, with the background first for detectors. Saved with the model
      for clients. None saves no names.
    batch_size: fixed batch size. None exports a dynamic batch size.
    input_image_size: (H, W) of the model's input. Defaults to that of the training.
    saved_model: options of the SavedModel format.
    quantize: see `ExportOptions`; the formats must support it.
    images: for verification, calibration and evaluation. Without images for the verification,
      nothing is verified.
    model_card: Markdown file to write that describes the model and its exports, or None.
    onnx: options of the ONNX format.
    overwrite: whether to replace outputs of an earlier export, see `check_export_paths`.
    progress: called with one line before each step.
    hide_output: whether to hide what converters print.

  Returns:
    The exports, in the order of `outputs`.

  Raises:
    UserError: the model cannot be exported. Nothing is written.
    VerificationError: an exported model differs from the trained one. Nothing is written.
  """
  check_class_names(params, class_names)
  saved_model, images = saved_model or SavedModelOptions(), images or ExampleImages()
  path = str(weights.path) if isinstance(weights, Preset) else weights
  paths = check_export_paths(outputs, overwrite=overwrite, inputs={"weights": path})
  progress("building and restoring the model")
  module = restored_module(
    params,
    weights,
    batch_size=batch_size,
    input_image_size=input_image_size,
    input_type=saved_model.input_type,
  )
  options = ExportOptions(
    describe_model(module, class_names),
    saved_model,
    onnx or OnnxOptions(),
    quantize=quantize,
    calibration_images=(
      prepared_images(module, images.calibration) if images.calibration else None
    ),
  )
  check = _Check(module, images, batch_size, saved_model.input_type, quantize)
  exported = []
  with contextlib.ExitStack() as stack:
    if model_card is not None:
      card = stack.enter_context(_output(pathlib.Path(model_card), None))
    for name, target in paths.items():
      progress(f"{name}: writing")
      temporary = stack.enter_context(_output(target, FORMATS[name], overwrite))
      with hidden_output(hide_output):
        compared = FORMATS[name].write(module, temporary, options)
      progress(f"{name}: verifying")
      with hidden_output(hide_output):  # XLA reports its first program
        exported.append(check.exported(name, pathlib.Path(outputs[name]), temporary, compared))
    if model_card is not None:
      write_model_card(
        card,
        pathlib.Path(model_card),
        module,
        options,
        exported,
        checkpoint=f"preset {weights.path.name}" if isinstance(weights, Preset) else weights,
        image_source=images.source,
      )
  return exported


class _Check:
  """Verifies exports, and measures the accuracy of quantized ones."""

  def __init__(
    self,
    module: Any,
    images: ExampleImages,
    batch_size: int | None,
    input_type: str,
    quantize: Quantization,
  ):
    self._images, self._quantize = images, quantize
    self._verifier = self._evaluated = None
    if images.verification:
      self._verifier = Verifier(
        module, images.verification, batch_size=batch_size, input_type=input_type
      )
    if quantize != "none" and images.evaluation:
      self._evaluated = TrainedModel(module, images.evaluation, batch_size)

  def exported(
    self, name: str, target: pathlib.Path, written: pathlib.Path, compared: str | None
  ) -> Exported:
    """Returns the record of an export that lies at a temporary path.

    Args:
      name: of the format.
      target: final path.
      written: temporary path.
      compared: what the format's `write` says about the comparison with the trained model.

    Raises:
      VerificationError: it differs from the trained model.
    """
    precision = "float32" if self._quantize == "none" else self._quantize
    verification = accuracy = None
    try:
      if self._verifier is not None and name in RUNTIMES:
        verification = self._verifier.verify(name, written, precision)
        if self._evaluated is not None:
          accuracy = measure_accuracy(self._evaluated, self._images.labels, name, written)
    except tf.errors.OpError as error:
      raise UserError(
        f"{name} cannot be verified: {error.message.splitlines()[0]}. Pass other images with "
        "--verification_images, or --noverify."
      ) from error
    return Exported(
      name,
      target,
      size_of(written),
      self._quantize,
      (*(verification.lines() if verification else ()), *filter(None, [compared])),
      "; ".join(filter(None, [summary(verification) if verification else "", compared])),
      str(accuracy) if accuracy else "",
    )


@contextlib.contextmanager
def _output(
  target: pathlib.Path, export_format: ExportFormat | None, overwrite: bool = True
) -> Iterator[pathlib.Path]:
  """Yields the path to write to, which replaces `target` on success."""
  if export_format is not None and export_format.layout is not None:
    replacement = replace_directory(target, export_format.layout)
  else:
    replacement = replace_file(target)
  try:
    with replacement as temporary:
      if not overwrite and target.exists():
        raise UserError(f"{target} was created by another process. Choose another path.")
      yield temporary
  except (OSError, tf.errors.OpError) as error:
    problem = (getattr(error, "message", None) or str(error)).strip()
    if problem.startswith(_IN_PYTHON):  # the model cannot be traced
      raise UserError(
        f"the model cannot be exported to {target}: {problem.splitlines()[-1].strip()} Earlier "
        "exports are unchanged. Check --input_image_size and --batch_size."
      ) from error
    raise UserError(
      f"the export cannot be written to {target}: {problem.splitlines()[0]}. Earlier exports are "
      "unchanged. Free disk space, or choose another directory."
    ) from error
