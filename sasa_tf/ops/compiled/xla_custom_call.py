"""Calls of the compiled kernels as XLA custom calls, inside and outside XLA programs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.types import Device

# Supported dtypes and StableHLO's names for them.
ELEMENT_TYPES = {tf.float32: "f32", tf.bfloat16: "bf16", tf.float16: "f16"}

# Devices with compiled kernels and XLA's names for their platforms.
PLATFORMS: dict[Device, str] = {"CPU": "CPU", "GPU": "CUDA"}

# Version of tf.XlaCallModule's calling convention, the oldest that TensorFlow 2.20 supports.
_CALLING_CONVENTION = 9


def unsupported_dtype(dtype: tf.DType) -> str | None:
  """Returns why the kernels do not support a dtype, or None if they do."""
  if dtype in ELEMENT_TYPES:
    return None
  names = ", ".join(known.name for known in ELEMENT_TYPES)
  return f"the compiled kernels take {names}, not {dtype.name}"


def call_kernel(
  module: str,
  platforms: Sequence[str],
  arguments: Sequence[tf.Tensor],
  output_specs: Sequence[tf.TensorSpec],
) -> list[tf.Tensor]:
  """Calls a kernel.

  Args:
    module: StableHLO text with one custom call, as `stablehlo.module` returns it.
    platforms: the module's platforms, of "CPU" and "CUDA".
    arguments: of the module's main function.
    output_specs: static shape and dtype of its results.
  """
  return compat.call_module(
    arguments,
    module,
    output_specs=output_specs,
    platforms=platforms,
    version=_CALLING_CONVENTION,
  )
