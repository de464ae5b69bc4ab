"""The compiled kernels of block attention with absorbed projections, for the attention stem.

See sasa_tf/native/stem_kernels.h for what they compute.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as compat
from sasa_tf.native import library, limits
from sasa_tf.ops.checks import static_size
from sasa_tf.ops.compiled.stablehlo import SIZES, Array, module
from sasa_tf.ops.compiled.xla_custom_call import (
  ELEMENT_TYPES,
  PLATFORMS,
  call_kernel,
  unsupported_dtype,
)
from sasa_tf.ops.derivatives import vector_jacobian_product
from sasa_tf.ops.xla_barriers import target_device


@dataclasses.dataclass(frozen=True)
class _StemCall:
  """Everything that the text of the forward and the backward call depends on.

  Attributes:
    element: StableHLO's name for the dtype of the inputs.
    block: (rows, columns).
    channels: C.
    heads: N.
    depth: D.
    platforms: platforms that have the kernels, of "CPU" and "CUDA".
  """

  element: str
  block: tuple[int, int]
  channels: int
  heads: int
  depth: int
  platforms: tuple[str, ...]

  @functools.cached_property
  def forward(self) -> str:
    """Takes inputs, similarity and value kernels; returns the output."""
    return self._module("forward", self._inputs, [self._output])

  @functools.cached_property
  def backward(self) -> str:
    """Takes those and the output's gradient; returns gradients of the last two and scratch."""
    _, similarity, values = self._inputs
    positions = self.block[0] * self.block[1]
    scratch = Array((_scratch_floats(positions, self.channels, self.heads, self.depth),))
    return self._module("backward", [*self._inputs, self._output], [similarity, values, scratch])

  @property
  def _inputs(self) -> list[Array]:
    rows, columns = self.block
    return [
      Array((*SIZES, self.channels), self.element),
      Array((self.heads, self.channels, self.channels)),
      Array((rows * columns, self.channels, self.heads, self.depth)),
    ]

  @property
  def _output(self) -> Array:
    return Array((*SIZES, self.heads, self.depth), self.element)

  def _module(self, name: str, arguments: list[Array], results: list[Array]) -> str:
    rows, columns = self.block
    attributes = {"rows": f"{rows} : i64", "columns": f"{columns} : i64"}
    return module(f"stem_attention_{name}", arguments, results, attributes, self.platforms)


def _scratch_floats(positions: int, channels: int, heads: int, depth: int) -> int:
  """StemWorkspaceFloats of sasa_tf/native/stem_kernels.h."""
  row = -(-depth // 16) * 16
  table = heads * (positions * channels * row + 16 * channels**2)
  workers = max(32, min(512, 2**21 // max(table, 1)))
  return workers * table


def unsupported_reason(
  inputs: tf.Tensor | tf.TensorSpec, block: tuple[int, int], depth: int, heads: int | None = None
) -> str | None:
  """Returns why the compiled kernels do not support these arguments, or None if they do.

  Args:
    inputs: [B, H, W, C].
    block: (rows, columns) of a block.
    depth: D.
    heads: N, if known.
  """
  device, loaded = target_device(), library.load()
  if device not in PLATFORMS:
    return f"there are no compiled kernels of block attention for a {device}"
  if PLATFORMS[device] not in loaded.platforms:
    return loaded.reason
  unsupported = unsupported_dtype(inputs.dtype)
  if unsupported:
    return unsupported
  return limits.stem_attention_unsupported(
    PLATFORMS[device], block, tuple(inputs.shape), depth, heads
  )


def block_attention_absorbed(
  inputs: tf.Tensor,
  similarity: tf.Tensor,
  value_kernels: tf.Tensor,
  block: tuple[int, int],
  stock: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
  """Attends within blocks, where `unsupported_reason` returns None.

  Args:
    inputs: x, [B, H, W, C].
    similarity: W_Q W_K^T of each head, [N, C, C] float32; the logit of the query x_p and the key
      x_q is x_p similarity[n] x_q.
    value_kernels: [P, C, N, D] float32, the value projection of each of the P pixels of a block.
    block: (rows, columns) of a block.
    stock: computes the same in TensorFlow operations. Its derivatives are used for the gradient of
      `inputs`, which is rarely needed and else removed as dead code, and for second derivatives.

  Returns:
    [B, H, W, N, D] in the dtype of `inputs`.
  """
  heads, depth = static_size(value_kernels, 2), static_size(value_kernels, 3)
  platforms = library.load().platforms
  call = _StemCall(
    ELEMENT_TYPES[inputs.dtype], block, static_size(inputs, 3), heads, depth, platforms
  )
  output_spec = tf.TensorSpec([*inputs.shape[:3], heads, depth], inputs.dtype)

  def stock_gradients(*arguments: tf.Tensor) -> Any:
    *inputs, upstream = arguments
    return vector_jacobian_product(stock, inputs, [upstream])

  @tf.custom_gradient
  def attend(*arguments: tf.Tensor) -> Any:
    (result,) = call_kernel(call.forward, platforms, arguments, [output_spec])

    @tf.custom_gradient
    def gradient(*arguments: tf.Tensor) -> Any:
      inputs, *weights, upstream = arguments
      d_similarity, d_value_kernels, _ = call_kernel(
        call.backward,
        platforms,
        arguments,
        [
          tf.TensorSpec(similarity.shape, tf.float32),
          tf.TensorSpec(value_kernels.shape, tf.float32),
          tf.TensorSpec([None], tf.float32),  # scratch
        ],
      )
      (d_inputs,) = vector_jacobian_product(lambda x: stock(x, *weights), [inputs], [upstream])

      def second_gradient(*upstreams: Any) -> Any:
        return vector_jacobian_product(stock_gradients, arguments, upstreams)

      return [d_inputs, d_similarity, d_value_kernels], second_gradient

    def first_gradient(upstream: tf.Tensor) -> Any:
      if compat.carries_tangents([*arguments, upstream]):
        return stock_gradients(*arguments, upstream)
      return gradient(*arguments, upstream)

    return result, first_gradient

  arguments = (inputs, similarity, value_kernels)
  return stock(*arguments) if compat.carries_tangents(arguments) else attend(*arguments)
