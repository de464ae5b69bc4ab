"""The signature `gpu` of a SavedModel: compiled by XLA, with attention kernels as text inside."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import tensorflow as tf
import tf_keras

from sasa_tf.compat.model_garden import rebuild_export_module
from sasa_tf.compat.tensorflow import replace_captured_variables
from sasa_tf.errors import UserError
from sasa_tf.ops.export_context import ExportedGpuKernels, gpu_kernels_for_export
from sasa_tf.ops.portable.custom_call import KernelFormat
from sasa_tf.ops.portable.kernel import missing_compiler
from sasa_tf.serving.modules.detection_module import DetectionModule

NAME = "gpu"
CHOICES = ("auto", "ptx", "triton", "none")

# The first TensorFlow with custom calls of PTX, and of Triton IR.
_FIRST_TENSORFLOW = {"ptx": (2, 21), "triton": (2, 20)}


class GpuSignature(NamedTuple):
  """The signature, and what it needs where it is served.

  Attributes:
    function: takes `images` float32 [B, *prepared_size, 3], RGB, 0 to 255.
    kernels: format and number of the kernels.
    dtype: that the network computes in.
    traced: the module that was traced, whose variables must live as long as the function, although
      it reads those of the exported module.
  """

  function: tf.types.experimental.ConcreteFunction
  kernels: ExportedGpuKernels
  dtype: str
  traced: Any

  def describe(self) -> dict[str, Any]:
    """Returns what a client must know, as JSON values."""
    kernel_format = self.kernels.kernel_format
    version = ".".join(map(str, _FIRST_TENSORFLOW[kernel_format]))
    return {
      "signature": NAME,
      "kernels": kernel_format,
      "attention_layers_with_kernels": self.kernels.layers,
      "attention_layers_without": len(self.kernels.stock),
      "dtype": self.dtype,
      "needs": f"TensorFlow {version} or later, NVIDIA GPU of compute capability 8.0 or later",
    }

  def __str__(self) -> str:
    total = self.kernels.layers + len(self.kernels.stock)
    lines = [
      f"signature {NAME!r}: {self.kernels.layers} of {total} attention layers have "
      f"{self.kernels.kernel_format} kernels, {self.dtype}; needs {self.describe()['needs']}"
    ]
    lines += [f"  without a kernel: {reason}" for reason in dict.fromkeys(self.kernels.stock)]
    return "\n".join(lines)


def choose_kernels(choice: str) -> tuple[KernelFormat | None, str]:
  """Returns the format of the kernels, or None for no signature, and the reason.

  "auto" chooses PTX if the installed TensorFlow loads it, else Triton IR, and none without nvcc.

  Args:
    choice: one of `CHOICES`.

  Raises:
    UserError: the kernels were requested by name, and there is no nvcc.
  """
  if choice == "none":
    return None, "not requested"
  missing = missing_compiler()
  if missing is not None:
    if choice == "auto":
      return None, "nvcc, which compiles them, was not found"
    raise UserError(missing)
  if choice != "auto":
    return cast(KernelFormat, choice), "requested"
  version = tuple(int(part) for part in tf.__version__.split(".")[:2])
  chosen = "ptx" if version >= _FIRST_TENSORFLOW["ptx"] else "triton"
  return chosen, f"the best of TensorFlow {tf.__version__}"


def gpu_signature(
  module: Any, kernel_format: KernelFormat, *, require_kernels: bool = True
) -> GpuSignature:
  """Traces the signature.

  The network computes in the precision of its training (`runtime.mixed_precision_dtype`), with the
  weights of the module. A classifier is one XLA program. In a detector, non-maximum suppression
  runs outside of it.

  Args:
    module: export module with restored weights.
    kernel_format: "ptx" or "triton".
    require_kernels: whether at least one layer must have a kernel.

  Raises:
    UserError: a kernel cannot be compiled, or no layer has one.
  """
  kernels = ExportedGpuKernels(kernel_format)
  precision = module.params.runtime.mixed_precision_dtype or "float32"
  twin = _in_precision(module, precision)
  batch = module.batch_size
  spec = tf.TensorSpec([batch, *module.prepared_size, 3], tf.float32, name="images")
  with gpu_kernels_for_export(kernels), _compiled(twin, spec) as serve:
    function = serve.get_concrete_function(spec)
  if require_kernels and not kernels.layers:
    reasons = "; ".join(dict.fromkeys(kernels.stock)) or "the model has no local attention"
    raise UserError(
      f"no attention layer of this model can have a GPU kernel: {reasons}. Export with "
      "--gpu_kernels=none."
    )
  if twin is not module:
    replace_captured_variables(function, twin.model.variables, module.model.variables)
  return GpuSignature(function, kernels, precision, twin)


def _in_precision(module: Any, precision: str) -> Any:
  """Returns the module, or one with the same architecture in another precision."""
  if precision == "float32":
    return module
  previous = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy(f"mixed_{precision}")
  try:
    return rebuild_export_module(module)
  finally:
    tf_keras.mixed_precision.set_global_policy(previous)


@contextlib.contextmanager
def _compiled(module: Any, spec: tf.TensorSpec) -> Iterator[Any]:
  """Yields `serve_prepared` as a function whose network XLA compiles; outputs are float32."""

  def serve(images):
    # TensorFlow does not compare the inputs of a loaded signature with its spec.
    return _float32(module.serve_prepared(tf.ensure_shape(images, spec.shape)))

  if not isinstance(module, DetectionModule):
    yield tf.function(serve, jit_compile=True)
    return
  model = module.model

  @tf.function(jit_compile=True)
  def network(images):
    features = model.backbone(images)
    return _float32(model.head(model.decoder(features) if model.decoder else features))

  module.model = types.SimpleNamespace(backbone=lambda images: images, decoder=None, head=network)
  try:
    yield tf.function(serve)
  finally:
    module.model = model


def _float32(outputs: Any) -> Any:
  return tf.nest.map_structure(
    lambda x: tf.cast(x, tf.float32) if x.dtype.is_floating else x, outputs
  )
