"""Whether functions are being traced for export, to run where this library may not be installed.

An exported model must not hold the custom calls of the compiled kernels, because a stock runtime
(TensorFlow Serving, LiteRT, ONNX Runtime) cannot load them. So implementation="auto" does not
select "fused" while functions are traced for export, unless the export brings the kernels along
(`tracing_for_export(compiled_kernels=True)`).

Detected automatically:
  * everything that `tf.saved_model.save` traces, which includes `tf_keras.Model.save` in the
    SavedModel format and `tf.lite.TFLiteConverter.from_keras_model`;
  * `Model.export` and `ExportArchive.write_out` of a Keras version whose binding (`sasa_tf.keras`
    or `sasa_tf.tf_keras`) has been imported;
  * `sasa_tf.serving` and the program `sasa_tf.bin.export`.

All other exporters trace functions like any other caller: tf2onnx, Model Garden's own export
programs, and concrete functions that you pass to `tf.saved_model.save` or to
`TFLiteConverter.from_concrete_functions`. Enter `tracing_for_export` around them:

    with sasa_tf.ops.tracing_for_export():
      function = tf.function(model).get_concrete_function(spec)

A function that was traced before, outside the context, is exported as it is. An exported graph
holds compiled kernels if it has operations of the type XlaCallModule.

GPU kernels may travel inside of an exported model as text, see `gpu_kernels_for_export`.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Literal

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat


@dataclasses.dataclass
class ExportedGpuKernels:
  """The format of the kernels of an exported function, and which layers have them.

  Attributes:
    kernel_format: "ptx", which TensorFlow 2.21 and later load, or "triton", which 2.20 and later
      compile.
    layers: number of calls of local attention with a kernel.
    stock: why other calls have none, one reason per call.
  """

  kernel_format: Literal["ptx", "triton"]
  layers: int = 0
  stock: list[str] = dataclasses.field(default_factory=list)


_gpu_kernels: contextvars.ContextVar[ExportedGpuKernels | None] = contextvars.ContextVar(
  "gpu_kernels_for_export", default=None
)
_tracing: contextvars.ContextVar[bool] = contextvars.ContextVar("tracing_for_export", default=False)
_with_kernels: contextvars.ContextVar[bool] = contextvars.ContextVar(
  "exported_with_compiled_kernels", default=False
)
_quantizable: contextvars.ContextVar[bool] = contextvars.ContextVar("quantizable", default=True)
_product_columns: contextvars.ContextVar[int] = contextvars.ContextVar("product_columns", default=0)
_for_openvino: contextvars.ContextVar[bool] = contextvars.ContextVar("for_openvino", default=False)


@contextlib.contextmanager
def tracing_for_export(
  *,
  compiled_kernels: bool = False,
  quantizable: bool | None = None,
  product_columns: int | None = None,
  for_openvino: bool | None = None,
) -> Iterator[None]:
  """Context manager in which implementation="auto" traces TensorFlow's own operations only.

  Use it around exporters that are not detected automatically, such as tf2onnx, and around
  `get_concrete_function` of functions to export. It does not affect eager operations, nor an
  implementation requested by name or by `use_implementation`.

  Args:
    compiled_kernels: whether "auto" may select the compiled kernels all the same. The exported
      function then needs the library `libsasa_tf.so` where it runs.
    quantizable: whether the activations may be quantized to integers later. Masked logits are then
      only as low as the softmax needs, because a quantized tensor has one range for all of its
      elements. False adds a large negative constant instead, which takes fewer operations. The
      results are equal. None keeps what an outer context specifies, and is True without one.
    product_columns: the lowest number of columns of the matrix products of attention, for runtimes
      whose products of narrow matrices are slow: heads are joined, with a block-diagonal query,
      until they have as many channels. 0 computes one product for each head, as multi-head
      attention does, a pattern that some runtimes fuse. None keeps what an outer context specifies,
      and is 0 without one. The results are equal.
    for_openvino: whether the graph is for OpenVINO, which has channels first and fuses attention.
      Projections then take their pixels from images with channels first, and the bias of the logits
      is a batched product, which TensorFlow's own kernels may not compute. None keeps what an outer
      context specifies, and is False without one. The results are equal.

  Examples:
    >>> with sasa_tf.ops.tracing_for_export():
    ...   onnx_model, _ = tf2onnx.convert.from_keras(model)
  """
  tracing, with_kernels = _tracing.set(True), _with_kernels.set(compiled_kernels)
  bounded = _quantizable.set(_quantizable.get() if quantizable is None else quantizable)
  columns = _product_columns.set(
    _product_columns.get() if product_columns is None else product_columns
  )
  first = _for_openvino.set(_for_openvino.get() if for_openvino is None else for_openvino)
  try:
    yield
  finally:
    _for_openvino.reset(first)
    _product_columns.reset(columns)
    _quantizable.reset(bounded)
    _with_kernels.reset(with_kernels)
    _tracing.reset(tracing)


@contextlib.contextmanager
def gpu_kernels_for_export(kernels: ExportedGpuKernels) -> Iterator[None]:
  """Context manager in which implementation="auto" traces GPU kernels as text, for export.

  The functions run on NVIDIA GPUs of compute capability 8.0 and later only, without this library,
  inside of `tf.function(jit_compile=True)`. They have no gradient. Attention that the kernels do
  not support is traced in TensorFlow's own operations. The kernels are compiled by nvcc while the
  function is traced.

  Args:
    kernels: the format; the counts of layers are updated.
  """
  token = _gpu_kernels.set(kernels)
  try:
    with tracing_for_export():
      yield
  finally:
    _gpu_kernels.reset(token)


def exported_gpu_kernels() -> ExportedGpuKernels | None:
  """Returns the argument of the `gpu_kernels_for_export` that a function is traced in, or None."""
  return None if tf.executing_eagerly() else _gpu_kernels.get()


def is_tracing_for_export() -> bool:
  """Returns whether a function is being traced for export."""
  return not tf.executing_eagerly() and (_tracing.get() or compat.in_save_context())


def exports_stock_operations() -> bool:
  """Returns whether a function is being traced for export without the compiled kernels."""
  return is_tracing_for_export() and not _with_kernels.get()


def is_quantizable() -> bool:
  """Returns whether the activations of the function being exported may be quantized later."""
  return _quantizable.get()


def product_columns() -> int:
  """Returns the lowest number of columns of matrix products, see `tracing_for_export`."""
  return _product_columns.get()


def exports_for_openvino() -> bool:
  """Returns whether a function is being traced for OpenVINO, see `tracing_for_export`."""
  return is_tracing_for_export() and _for_openvino.get()
