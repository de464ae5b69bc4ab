"""What an export format is. Imports no TensorFlow, so that programs check formats at once."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.serving.metadata import ModelMetadata

if TYPE_CHECKING:
  import numpy as np

Quantization = Literal["none", "float16", "int8"]


@dataclasses.dataclass(frozen=True)
class SavedModelOptions:
  """Options of the SavedModel format.

  Attributes:
    input_type: kind of the signature that is also `serving_default`: "image_tensor",
      "image_bytes" or "tf_example".
    signatures: kinds of the signatures, see `ImageModule`. None for all.
    warmup_requests: number of warm-up requests for TensorFlow Serving, per signature.
    cpu_kernels: whether the signatures call the compiled kernels, which are then copied to
      assets.extra. Signatures in TensorFlow's own operations are added.
    gpu_kernels: "auto", "ptx", "triton" or "none", see `sasa_tf.serving.gpu_signature`.
    require_gpu_kernels: whether a model without attention that a kernel supports has no signature
      `gpu`. Otherwise XLA compiles its stock operations, for measurements.
    report: called with lines for the user.
  """

  input_type: str = "image_tensor"
  signatures: tuple[str, ...] | None = None
  warmup_requests: int = 1
  cpu_kernels: bool = False
  gpu_kernels: str = "none"
  require_gpu_kernels: bool = True
  report: Callable[[str], None] = print


@dataclasses.dataclass(frozen=True)
class OnnxOptions:
  """Options of the ONNX format.

  Attributes:
    opset: version of ONNX's operations.
  """

  opset: int = 17


@dataclasses.dataclass(frozen=True)
class ExportOptions:
  """Options that a format's `write` receives.

  Attributes:
    metadata: class names, preprocessing and outputs, to be stored in the file or directory.
    saved_model: options of the SavedModel format.
    onnx: options of the ONNX format.
    quantize: "float16" for float16 weights, "int8" for 8-bit integer weights and operations; one
      of the format's `quantizations`.
    calibration_images: for "int8", images of the data: float32 [B, H, W, 3], values from 0 to 255.
  """

  metadata: ModelMetadata
  saved_model: SavedModelOptions = SavedModelOptions()
  onnx: OnnxOptions = OnnxOptions()
  quantize: Quantization = "none"
  calibration_images: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class ExportFormat:
  """A format of exported models.

  Attributes:
    name: value of --format.
    file_name: name of the file or directory in --output_dir.
    write: `write(module, path, options)` writes an export module with restored weights, and may
      return a few words about its comparison with the trained model, for the report. `path` is
      temporary and gets its name when all is written: an existing, empty directory, or a file to
      create. Raises `UserError` if the model cannot be exported. It imports what it needs when
      it is called, because the registry must load fast.
    description: what the format is, for messages and the model card.
    layout: of directories: what an existing one must hold to be replaced. None for files.
    is_own: of files: whether an existing file is of this format and may be replaced.
    quantizations: the values of --quantize that the format supports.
    requires: modules that the format needs, keys of `sasa_tf.extras.OPTIONAL`.
  """

  name: str
  file_name: str
  write: Callable[[Any, pathlib.Path, ExportOptions], str | None]
  description: str
  layout: DirectoryLayout | None = None
  is_own: Callable[[pathlib.Path], bool] | None = None
  quantizations: tuple[Quantization, ...] = ("none",)
  requires: tuple[str, ...] = ()

  @property
  def is_directory(self) -> bool:
    """Whether the format is a directory, not a file."""
    return self.layout is not None
