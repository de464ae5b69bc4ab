"""ONNX files for ONNX Runtime and others, converted by tf2onnx."""

from __future__ import annotations

import logging
import pathlib
from typing import TYPE_CHECKING, Any

from sasa_tf import extras
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import begins_with
from sasa_tf.serving.formats.calibration import check_calibration_images
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions, Quantization
from sasa_tf.serving.formats.prepared_signature import IMPLEMENTATION_HINT, prepared_signature

if TYPE_CHECKING:
  import numpy as np
  from official.vision.serving import export_base

# Below, slices and suppression have no operations with inputs that are computed.
MIN_OPSET = 11
# Above, tf2onnx has not defined how it converts the operations.
MAX_OPSET = 18
# Below, QuantizeLinear has one scale for all channels.
MIN_INT8_OPSET = 13
_PRODUCER = "sasa_tf"
# ONNX Runtime multiplies and transposes narrower matrices slowly.
_PRODUCT_COLUMNS = 16


def write(module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions) -> None:
  """Writes an export module as an ONNX file, see `convert`.

  Class names, preprocessing and outputs are stored in `metadata_props`.

  Args:
    module: export module with restored weights.
    path: file to create.
    options: of the export.

  Raises:
    UserError: the opset is not supported, or lacks operations of the model.
  """
  import onnx

  model = convert(module, options.onnx.opset, options.quantize, options.calibration_images)
  onnx.helper.set_model_props(model, options.metadata.to_properties())
  path.write_bytes(model.SerializeToString())


def convert(
  module: export_base.ExportModule,
  opset: int,
  quantize: Quantization = "none",
  calibration_images: np.ndarray | None = None,
) -> Any:
  """Converts the model of an export module to ONNX.

  The input is `images` float32 [B, H, W, 3], RGB with values from 0 to 255, of the model's input
  size. The outputs are those of the SavedModel's signature `prepared`, by name.

  Args:
    module: export module with restored weights.
    opset: version of ONNX's operations, from `MIN_OPSET` to `MAX_OPSET`.
    quantize: "float16" stores the weights in float16. "int8" computes convolutions and matrix
      products in 8-bit integers, from opset 13 on.
    calibration_images: for "int8", at least one: float32 [B, H, W, 3], values from 0 to 255.

  Returns:
    An `onnx.ModelProto` with standard operations only.

  Raises:
    UserError: the opset is not supported or lacks operations of the model, or there are no images
      for the calibration.
    MissingExtraError: "int8" needs ONNX Runtime, which is not installed.
  """
  check_opset(opset, quantize)
  if quantize == "int8":
    extras.require("--quantize=int8 of --format=onnx", "onnxruntime")
    check_calibration_images(calibration_images)
  import tf2onnx

  from sasa_tf.ops import tracing_for_export
  from sasa_tf.serving.formats.onnx_quantization import quantize_to_int8, store_weights_in_float16

  function, images = prepared_signature(module, module.batch_size)
  logging.getLogger("tf2onnx").setLevel(logging.ERROR)
  quantizable = quantize == "int8"
  columns = 0 if quantizable else _PRODUCT_COLUMNS
  with tracing_for_export(quantizable=quantizable, product_columns=columns):
    model, _ = tf2onnx.convert.from_function(function, [images], opset=opset)
  _check_operations(model, opset)
  _name_batch(model, module.batch_size)
  if quantize == "float16":
    store_weights_in_float16(model)
  elif quantize == "int8":
    model = quantize_to_int8(model, calibration_images)
  model.producer_name = _PRODUCER
  return model


def check_opset(opset: int, quantize: Quantization = "none") -> None:
  """Raises a `UserError` if the opset is not supported."""
  if quantize == "int8" and MIN_OPSET <= opset < MIN_INT8_OPSET:
    raise UserError(
      f"--onnx_opset={opset} is not supported with --quantize=int8: expected {MIN_INT8_OPSET} to "
      f"{MAX_OPSET}. Older opsets have no scales by channel."
    )
  if not MIN_OPSET <= opset <= MAX_OPSET:
    raise UserError(
      f"--onnx_opset={opset} is not supported: expected {MIN_OPSET} to {MAX_OPSET}. Older opsets "
      "lack operations of these models; runtimes for later ones also run earlier ones."
    )


def _check_operations(model: Any, opset: int) -> None:
  """Raises a `UserError` if operations of TensorFlow remained, which tf2onnx only logs."""
  import onnx

  unknown = sorted(
    {
      node.op_type
      for node in model.graph.node
      if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type)
    }
  )
  if unknown:
    raise UserError(
      f"the model cannot be converted to ONNX opset {opset}, which lacks the operations "
      f"{', '.join(unknown)}. {IMPLEMENTATION_HINT}"
    )
  onnx.checker.check_model(model)


def _name_batch(model: Any, batch_size: int | None) -> None:
  """Gives the dynamic batch one name in all inputs and outputs."""
  if batch_size is None:
    for value in (*model.graph.input, *model.graph.output):
      value.type.tensor_type.shape.dim[0].dim_param = "batch"


FORMAT = ExportFormat(
  name="onnx",
  file_name="model.onnx",
  write=write,
  description="ONNX file for ONNX Runtime, Triton and others",
  # Field 2 of an ONNX file, after the two bytes of the version, is its producer.
  is_own=begins_with(bytes([0x12, len(_PRODUCER)]) + _PRODUCER.encode(), offset=2),
  quantizations=("none", "float16", "int8"),
  requires=("onnx", "tf2onnx"),
)
