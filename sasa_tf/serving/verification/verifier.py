"""Verifies exported models against the trained model on real images."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sasa_tf.data.labels import read_labels
from sasa_tf.errors import UserError
from sasa_tf.serving.compiled_kernels.library_file import STOCK_SUFFIX
from sasa_tf.serving.formats.saved_model import LABELS
from sasa_tf.serving.runtimes.registry import find_runtime
from sasa_tf.serving.verification.class_names import without_class_names
from sasa_tf.serving.verification.classification import (
  ClassificationComparison,
  compare_classifiers,
)
from sasa_tf.serving.verification.detection import DetectionComparison, compare_detectors
from sasa_tf.serving.verification.limits import LIMITS, Limits
from sasa_tf.serving.verification.raw_outputs import RawComparison, compare_outputs
from sasa_tf.serving.verification.runtime_process import RuntimeOutputs, run_in_fresh_process
from sasa_tf.serving.verification.trained_model import Kind, Outputs, TrainedModel

Comparison = ClassificationComparison | DetectionComparison | RawComparison
Precision = Literal["float32", "float16", "bfloat16", "int8"]

# Signature of kernels for GPUs, which the runtime runs where there is a GPU.
_GPU = "gpu"


class VerificationError(UserError):
  """An exported model differs from the trained model."""


@dataclasses.dataclass(frozen=True)
class Verification:
  """An exported model equals the trained model within the limits of its precision.

  Attributes:
    format_name: of the exported model.
    runtime: name and version of the runtime that ran it.
    precision: of the exported model, a key of `LIMITS`.
    comparisons: one per signature.
  """

  format_name: str
  runtime: str
  precision: Precision
  comparisons: tuple[Comparison, ...]

  def lines(self) -> list[str]:
    """Returns the numbers as lines of text."""
    return [
      f"{self.format_name} verified with {self.runtime}, {self.precision}:",
      *(f"  {comparison}" for comparison in self.comparisons),
    ]


class Verifier:
  """Runs exported models in fresh processes without sasa_tf, and compares them.

  The outputs of the trained model are computed once for all formats.

  Attributes:
    trained: inputs and outputs of the trained model.

  Examples:
    >>> verifier = Verifier(module, images, batch_size=None, input_type="image_tensor")
    >>> for line in verifier.verify("litert", "export/model.tflite").lines(): print(line)
  """

  def __init__(
    self,
    module: Any,
    images: Sequence[bytes | np.ndarray],
    *,
    batch_size: int | None = None,
    input_type: Kind = "image_tensor",
    time_limit_seconds: float = 600,
    use_gpu: bool = False,
  ):
    """Takes the trained model and the images.

    Args:
      module: `ClassificationModule` or `DetectionModule` with restored weights.
      images: encoded images, or uint8 [H, W, 3]. Images of the data say more than random ones.
      batch_size: fixed batch size of the module; None if it is dynamic.
      input_type: input of a SavedModel's `serving_default`.
      time_limit_seconds: of each process.
      use_gpu: whether the processes may use GPUs. This process usually holds their memory.

    Raises:
      UserError: there are no images.
    """
    self.trained = TrainedModel(module, images, batch_size)
    self._is_normalized = bool(
      getattr(module.params.task, "export_config", None)
      and module.params.task.export_config.output_normalized_coordinates
    )
    self._input_type = input_type
    self._process = {"time_limit_seconds": time_limit_seconds, "use_gpu": use_gpu}

  def verify(
    self, format_name: str, path: str | pathlib.Path, precision: Precision = "float32"
  ) -> Verification:
    """Runs an exported model on the images and compares all of its signatures.

    Args:
      format_name: a key of `sasa_tf.serving.runtimes.registry.RUNTIMES`.
      path: file or directory of the exported model, with its final suffix.
      precision: of the exported model's weights and operations; selects the limits.

    Raises:
      MissingExtraError: the runtime is not installed.
      VerificationError: the exported model differs by more than rounding.
      UserError: the runtime cannot run the model, crashes or exceeds the time limit.
    """
    runtime, path = find_runtime(format_name), pathlib.Path(path)
    file_name = path.name.removeprefix(".incomplete.")  # while it is being written
    kinds = self._kinds(format_name)
    batches = {name: self.trained.inputs(kind) for name, kind in kinds.items()}
    found = run_in_fresh_process(
      runtime,
      path,
      {
        f"{name}/{number}": inputs
        for name, each in batches.items()
        for number, (_, inputs) in enumerate(each)
      },
      **self._process,
    )
    unknown = found.signatures - kinds.keys()
    if unknown or not found.signatures:
      raise VerificationError(
        f"{file_name} has the signatures {sorted(found.signatures)}; expected some of "
        f"{sorted(kinds)}. It is not an export of this model."
      )
    limits, names = LIMITS[precision], _class_names(path)
    comparisons = tuple(
      self._compare(name, kinds[name], batches[name], found, names, limits)
      for name in kinds
      if name in found.signatures
    )
    _raise_failures(file_name, found.version, precision, comparisons)
    return Verification(format_name, found.version, precision, comparisons)

  def _kinds(self, format_name: str) -> dict[str, Kind]:
    """Returns {possible signature: what it takes} of a format."""
    if format_name == "keras":
      return {"normalized": "normalized"}
    if format_name != "saved_model":
      return {"prepared": "prepared"}
    kinds: dict[str, Kind] = {
      "image_tensor": "image_tensor",
      "image_bytes": "image_bytes",
      "tf_example": "tf_example",
      "prepared": "prepared",
      "serving_default": self._input_type,
      # With class names.
      "classify": "tf_example",
      "detect": "image_bytes",
    }
    stock = {f"{name}{STOCK_SUFFIX}": kind for name, kind in kinds.items()}
    return {**kinds, **stock, _GPU: "prepared"}

  def _compare(
    self,
    signature: str,
    kind: Kind,
    batches: list[tuple[list[int], np.ndarray]],
    found: RuntimeOutputs,
    names: Sequence[str],
    limits: Limits,
  ) -> Comparison:
    trained = self.trained.outputs(kind)
    order = np.argsort([row for rows, _ in batches for row in rows])
    parts = [found.outputs[f"{signature}/{number}"] for number in range(len(batches))]
    exported = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
    try:
      exported = without_class_names(exported, names)
    except ValueError as error:
      raise VerificationError(f"signature {signature} of the exported model: {error}.") from error
    if exported.keys() == {"probs"}:
      trained = {"probs": trained["probs"]}
    _check_outputs(signature, trained, exported)
    if signature == _GPU:  # in the precision of the training
      limits = LIMITS["bfloat16"]
    if kind == "normalized":
      return compare_outputs(signature, trained, exported, limits)
    if "detection_boxes" not in trained:
      return compare_classifiers(signature, trained, exported, limits)
    sides = [max(self.trained.prepared_size)] * len(order)
    if kind != "prepared":
      sides = [max(image.shape[:2]) for image in self.trained.images]
    if self._is_normalized:
      sides = [1] * len(order)
    return compare_detectors(signature, trained, exported, sides, limits)


def _class_names(path: pathlib.Path) -> Sequence[str]:
  """Returns the class names of an exported SavedModel; none if it has none."""
  file = path / LABELS
  return read_labels(file) if file.is_file() else ()


def _check_outputs(signature: str, trained: Outputs, exported: Outputs) -> None:
  """Compares names and shapes of the outputs."""
  before, after = (
    {name: value.shape for name, value in outputs.items()} for outputs in (trained, exported)
  )
  if before != after:
    raise VerificationError(
      f"the outputs of the exported model's signature {signature} are {after}; expected those of "
      f"the trained model, {before}."
    )


def _raise_failures(
  name: str, runtime: str, precision: Precision, comparisons: Sequence[Comparison]
) -> None:
  failures = {each.signature: each.failures() for each in comparisons}
  failed = [f"{signature}: {', '.join(each)}" for signature, each in failures.items() if each]
  if not failed:
    return
  if precision == "float32":
    cause = (
      f"The file does not hold these weights, or the converter or {runtime} computes an operation "
      "of this model in another way: try other versions of them"
    )
  else:
    cause = (
      f"The model does not tolerate {precision}: export it in float32, or calibrate it with more "
      "images"
    )
  raise VerificationError(
    f"{name}, run by {runtime}, differs from the trained model; {'; '.join(failed)}. {cause}."
  )
