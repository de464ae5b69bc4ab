"""The call of a compiled kernel through XLA, in a program of XLA's and outside of one."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # TensorFlow has no public name for this

# What the kernels take -> StableHLO's name for it.
ELEMENT_TYPES = {tf.float32: "f32", tf.bfloat16: "bf16", tf.float16: "f16"}

# Device -> what XLA calls its programs' platform.
PLATFORMS = {"CPU": "CPU", "GPU": "CUDA"}

# Version of tf.XlaCallModule's contract, the oldest that TensorFlow 2.20 and later keep.
_VERSION = 9


def dtype_refusal(dtype: tf.DType) -> str | None:
  """Returns why the kernels do not serve arrays of a dtype, or None if they do."""
  if dtype in ELEMENT_TYPES:
    return None
  names = ", ".join(known.name for known in ELEMENT_TYPES)
  return f"the compiled kernels take {names}, not {dtype.name}"


def call_module(
  module: str,
  platforms: Sequence[str],
  arguments: Sequence[tf.Tensor],
  results: Sequence[tuple[tf.DType, Sequence[int | None]]],
) -> list[tf.Tensor]:
  """Calls a module of StableHLO.

  Args:
    module: its text, as `kernel_module` makes it.
    platforms: that it is for.
    arguments: in its order.
    results: (dtype, static shape) of what it returns.
  """
  return xla.call_module(
    arguments,
    version=_VERSION,
    module=module,
    Tout=[dtype for dtype, _ in results],
    Sout=[shape for _, shape in results],
    platforms=platforms,
  )
