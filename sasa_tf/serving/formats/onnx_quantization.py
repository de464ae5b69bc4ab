"""ONNX models with weights in float16, or with convolutions and matrix products in int8."""

from __future__ import annotations

import logging
import pathlib
import tempfile
from typing import Any

import numpy as np

from sasa_tf.serving.formats.root_logging import preserved_root_logger

# Operations whose inputs and weights are 8-bit integers. The others, softmax and additions among
# them, take little of the time and stay in float32.
_INT8_OPERATIONS = ("Conv", "Gemm", "MatMul")
# Smaller constants, such as sizes and the parameters of normalizations, stay in float32.
_MIN_FLOAT16_ELEMENTS = 256


def store_weights_in_float16(model: Any) -> None:
  """Stores the large float32 constants of a model in float16, in place.

  The operations stay in float32: runtimes convert the constants back when they load the model. ONNX
  Runtime has float16 kernels for few CPUs, and the logits of masked keys exceed float16.

  Args:
    model: `onnx.ModelProto`.
  """
  from onnx import TensorProto, helper, numpy_helper

  casts = []
  for weight in model.graph.initializer:
    size = int(np.prod(weight.dims))
    if weight.data_type != TensorProto.FLOAT or size < _MIN_FLOAT16_ELEMENTS:
      continue
    values = numpy_helper.to_array(weight).astype(np.float16)
    if not np.isfinite(values).all():
      continue
    name = weight.name
    weight.CopyFrom(numpy_helper.from_array(values, f"{name}/float16"))
    casts.append(
      helper.make_node("Cast", [weight.name], [name], name=f"{name}/cast", to=TensorProto.FLOAT)
    )
  for cast in reversed(casts):  # nodes are in topological order
    model.graph.node.insert(0, cast)


def quantize_to_int8(model: Any, images: np.ndarray) -> Any:
  """Returns a model whose convolutions and matrix products are computed in 8-bit integers.

  Weights have a scale per output channel, activations one range. The ranges are those of images.

  Args:
    model: `onnx.ModelProto` in float32 with one input, traced for quantization.
    images: of the data, float32 [B, H, W, 3], values from 0 to 255.

  Returns:
    An `onnx.ModelProto` with QuantizeLinear and DequantizeLinear operations.
  """
  import onnx
  from onnxruntime import quantization

  class Images(quantization.CalibrationDataReader):
    """Yields the images one by one."""

    def __init__(self) -> None:
      self._inputs = iter([{model.graph.input[0].name: image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
      return next(self._inputs, None)

  # It recommends a step that merges operations, which tf2onnx does.
  with preserved_root_logger(logging.ERROR), tempfile.TemporaryDirectory() as folder:
    # It changes a model that is not a file.
    source, path = (pathlib.Path(folder, f"{name}.onnx") for name in ("float32", "int8"))
    onnx.save(model, source)
    quantization.quantize_static(
      source,
      path,
      Images(),
      quant_format=quantization.QuantFormat.QDQ,
      op_types_to_quantize=list(_INT8_OPERATIONS),
      per_channel=True,
      activation_type=quantization.QuantType.QUInt8,
      weight_type=quantization.QuantType.QInt8,
    )
    return onnx.load(path)
