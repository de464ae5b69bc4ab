"""Matrix products of half-precision operands with float32 accumulation."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.checks import softmax_dtype
from sasa_tf.ops.export_context import is_tracing_for_export

_HALF = (tf.float16, tf.bfloat16)


def product_dtype(dtype: tf.DType) -> tf.DType:
  """Returns the dtype of the operands of `product` for inputs of `dtype`.

  XLA multiplies half-precision operands with float32 results. TensorFlow's own kernels do not, so
  outside XLA the operands are float32.
  """
  return dtype if compat.in_xla_context() else softmax_dtype(dtype)


def product(
  a: tf.Tensor,
  b: tf.Tensor,
  adjoint_a: bool = False,
  adjoint_b: bool = False,
  rounded: bool = False,
) -> tf.Tensor:
  """Batched matrix product with the result in the softmax's dtype.

  Args:
    a: [G, I, J], or [G, J, I] with adjoint_a.
    b: [G, J, L], or [G, L, J] with adjoint_b.
    adjoint_a: whether to transpose a.
    adjoint_b: whether to transpose b.
    rounded: whether to round the result of half-precision operands to their dtype, which halves
      its memory.

  Returns:
    [G, I, L]. If one operand is half precision, the other is cast to it.
  """
  half = next((x.dtype for x in (a, b) if x.dtype in _HALF), None)
  if half is None:
    if a.shape[0] == b.shape[0] == 1 and not is_tracing_for_export():
      # TensorFlow's vectorization (`tape.jacobian`, `tf.vectorized_map`) adds an axis in front. Its
      # CPU kernel of [P, 1, I, J] times [1, 1, J, L] writes out of bounds (TensorFlow 2.20).
      return tf.matmul(a[0], b[0], transpose_a=adjoint_a, transpose_b=adjoint_b)[None]
    return tf.matmul(a, b, transpose_a=adjoint_a, transpose_b=adjoint_b)
  return tf.raw_ops.BatchMatMulV3(
    x=tf.cast(a, half),
    y=tf.cast(b, half),
    adj_x=adjoint_a,
    adj_y=adjoint_b,
    Tout=half if rounded else tf.float32,
  )
