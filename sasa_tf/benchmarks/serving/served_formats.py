"""The formats of exported models that the benchmark measures. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence

from sasa_tf.errors import UserError, did_you_mean
from sasa_tf.serving.compiled_kernels.library_file import STOCK_SUFFIX
from sasa_tf.serving.formats.format import Quantization
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.runtimes.registry import RUNTIMES

DEVICES = ("cpu", "gpu")
_SIGNATURE = "prepared"


@dataclasses.dataclass(frozen=True)
class ServedFormat:
  """An export format with its options.

  Attributes:
    name: value of --formats.
    export_format: a key of `FORMATS`.
    signature: of the exported model.
    devices: that its runtime uses.
    quantize: value of --quantize.
    cpu_kernels: whether a SavedModel calls the compiled kernels.
    gpu_kernels: value of --gpu_kernels.
    fixed_batch: whether there is a model for each batch size.
    is_default: whether it is measured by default.
  """

  name: str
  export_format: str
  signature: str = _SIGNATURE
  devices: tuple[str, ...] = ("cpu",)
  quantize: Quantization = "none"
  cpu_kernels: bool = False
  gpu_kernels: str = "none"
  fixed_batch: bool = False
  is_default: bool = True

  @property
  def has_kernels(self) -> bool:
    """Whether the model holds kernels of this library, which convolutions do not use."""
    return self.cpu_kernels or self.gpu_kernels != "none"

  def missing_packages(self, *, convert: bool) -> list[str]:
    """Returns the modules that are not installed.

    Args:
      convert: whether a model is exported first.
    """
    needed = [*RUNTIMES[self.export_format].requires]
    if convert:
      needed += FORMATS[self.export_format].requires
    return [each for each in dict.fromkeys(needed) if importlib.util.find_spec(each) is None]


def _quantized(name: str) -> list[ServedFormat]:
  return [
    ServedFormat(f"{name}/{quantize}", name, quantize=quantize, is_default=False)
    for quantize in FORMATS[name].quantizations
    if quantize != "none"
  ]


SERVED_FORMATS = {
  each.name: each
  for each in (
    ServedFormat("saved_model", "saved_model", devices=DEVICES),
    ServedFormat(
      "saved_model/fixed_batch", "saved_model", devices=DEVICES, fixed_batch=True, is_default=False
    ),
    ServedFormat("saved_model/cpu_kernels", "saved_model", cpu_kernels=True),
    ServedFormat(
      "saved_model/gpu_kernels", "saved_model", "gpu", devices=("gpu",), gpu_kernels="auto"
    ),
    ServedFormat("litert", "litert"),
    *_quantized("litert"),
    ServedFormat("onnx", "onnx"),
    *_quantized("onnx"),
    ServedFormat("openvino", "openvino"),
    *_quantized("openvino"),
  )
}

# The second signature of a SavedModel with compiled kernels.
STOCK_OF_KERNELS = dataclasses.replace(
  SERVED_FORMATS["saved_model"], signature=f"{_SIGNATURE}{STOCK_SUFFIX}"
)


def find_served_formats(names: Sequence[str]) -> list[ServedFormat]:
  """Returns the formats of --formats; those that are measured by default if it is empty.

  Raises:
    UserError: a name is unknown.
  """
  for name in names:
    if name not in SERVED_FORMATS:
      hint = did_you_mean(name, SERVED_FORMATS)
      if name in FORMATS:
        hint = f"Models of the format {name} run in Keras or in a browser, not in a server."
      raise UserError(f"--formats={name}: expected some of {', '.join(SERVED_FORMATS)}. {hint}")
  if names:
    return [SERVED_FORMATS[name] for name in dict.fromkeys(names)]
  return [each for each in SERVED_FORMATS.values() if each.is_default]
