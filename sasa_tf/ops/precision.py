"""Matrix products of half-precision numbers with sums in single precision."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # TensorFlow has no public name for this

_HALF = (tf.float16, tf.bfloat16)


def softmax_dtype(dtype: tf.DType) -> tf.DType:
  """The dtype in which logits and softmax are computed for inputs of `dtype`."""
  return tf.float64 if dtype == tf.float64 else tf.float32


def compiled_by_xla() -> bool:
  """Whether the operations made now are of a function that XLA compiles."""
  graph = tf.compat.v1.get_default_graph()
  return control_flow_util.GraphOrParentsInXlaContext(graph)


def product_dtype(dtype: tf.DType) -> tf.DType:
  """The dtype of the operands of `product` for inputs of `dtype`.

  XLA multiplies half-precision operands with float32 results, TensorFlow's own kernels do not.
  """
  return dtype if compiled_by_xla() else softmax_dtype(dtype)


def product(
  a: tf.Tensor,
  b: tf.Tensor,
  adjoint_a: bool = False,
  adjoint_b: bool = False,
  rounded: bool = False,
) -> tf.Tensor:
  """Batched matrix product with the result in the dtype of the softmax.

  Args:
    a: [G, I, J], or [G, J, I] with adjoint_a.
    b: [G, J, L], or [G, L, J] with adjoint_b.
    adjoint_a: whether to transpose a.
    adjoint_b: whether to transpose b.
    rounded: whether to round the result to operands of half precision: half the memory.

  Returns:
    [G, I, L]; where one operand is of half precision the other is rounded to it.
  """
  half = next((x.dtype for x in (a, b) if x.dtype in _HALF), None)
  if half is None:
    return tf.matmul(a, b, transpose_a=adjoint_a, transpose_b=adjoint_b)
  return tf.raw_ops.BatchMatMulV3(
    x=tf.cast(a, half),
    y=tf.cast(b, half),
    adj_x=adjoint_a,
    adj_y=adjoint_b,
    Tout=half if rounded else tf.float32,
  )
