"""Edge-case geometries and shapes that every implementation is tested with."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from sasa_tf import ops


@dataclasses.dataclass(frozen=True)
class Case:
  shape: tuple[int, int, int, int, int]  # [B, H, W, N, D]
  kernel_size: tuple[int, int]
  dilation_rate: tuple[int, int] = (1, 1)
  border: str = "zero"

  @property
  def arguments(self):
    return {
      "kernel_size": self.kernel_size,
      "dilation_rate": self.dilation_rate,
      "border": self.border,
    }


_SHAPES = {
  "one_pixel": ((1, 1, 1, 1, 2), (3, 3), (1, 1)),
  "one_column": ((1, 19, 1, 1, 4), (5, 5), (1, 1)),
  "wide": ((2, 5, 9, 2, 4), (3, 3), (1, 1)),
  "primes": ((1, 17, 19, 1, 4), (7, 7), (1, 1)),
  "kernel_larger_than_image": ((1, 3, 5, 2, 4), (7, 9), (1, 1)),
  "kernel_not_square": ((1, 9, 17, 2, 4), (5, 3), (1, 1)),
  "kernel_row": ((1, 6, 23, 1, 2), (1, 5), (1, 1)),
  "kernel_1": ((2, 5, 14, 2, 4), (1, 1), (1, 1)),
  "single_block_one_axis": ((1, 14, 30, 1, 2), (7, 7), (1, 1)),
  "dilated": ((1, 11, 14, 2, 4), (3, 3), (2, 2)),
  "dilated_unevenly": ((2, 13, 32, 1, 2), (3, 5), (2, 3)),
}

CASES = {
  f"{name}-{border}": Case(*arguments, border)
  for name, arguments in _SHAPES.items()
  for border in ("zero", "mask")
}

# One full block, blocks with halo and padding, and dilation; slow tests run on these alone.
FEW = ("wide-zero", "primes-mask", "single_block_one_axis-zero", "dilated-mask")

# XLA rounds products to the element type on some CPUs: an error of the type's precision in dP.
TOLERANCE = {tf.float64: 1e-10, tf.float32: 1e-5, tf.float16: 5e-3, tf.bfloat16: 3e-2}


def most_precise_dtype(implementation: str) -> tf.DType:
  """Returns the most precise dtype that an implementation supports."""
  return tf.float32 if implementation == "fused" else tf.float64


def inputs(case: Case, dtype: tf.DType = tf.float64, seed: int = 0) -> list[tf.Tensor]:
  """Returns query, key, value, relative_rows, relative_columns and an upstream gradient."""
  generator = np.random.default_rng(seed)
  half = case.shape[4] // 2
  shapes = [case.shape] * 3 + [(kernel, half) for kernel in case.kernel_size] + [case.shape]
  return [tf.cast(tf.constant(generator.normal(size=shape)), dtype) for shape in shapes]


def output_and_gradients(attend, tensors):
  """Returns [output, gradients of query, key, value, relative_rows, relative_columns]."""
  *sources, upstream = tensors
  with tf.GradientTape() as tape:
    tape.watch(sources)
    output = attend(*sources)
  return [output, *tape.gradient(output, sources, upstream)]


def attention(case: Case, implementation: str, **arguments):
  """Returns `local_attention_2d` with everything but its tensors bound."""
  arguments = {**case.arguments, "implementation": implementation, **arguments}
  return lambda *tensors: ops.local_attention_2d(*tensors, **arguments)


def assert_close(actual, expected, tolerance):
  """Compares each pair, relative to its largest expected magnitude (at least one)."""
  for index, (a, e) in enumerate(zip(actual, expected, strict=True)):
    a, e = tf.cast(a, tf.float64).numpy(), tf.cast(e, tf.float64).numpy()
    assert a.shape == e.shape
    assert np.isfinite(a).all(), index
    error = np.abs(a - e).max() / max(1.0, np.abs(e).max())
    assert error <= tolerance, f"tensor {index} differs by {error:.1e}"
