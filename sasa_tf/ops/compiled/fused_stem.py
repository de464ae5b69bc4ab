"""The compiled kernels of attention inside of blocks, computed from the pixels.

See sasa_tf/native/stem_kernels.h for what they compute.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from sasa_tf.native import library
from sasa_tf.ops.compiled.stablehlo import SIZES, Array, module
from sasa_tf.ops.compiled.xla_custom_call import (
  ELEMENT_TYPES,
  PLATFORMS,
  call_module,
  dtype_refusal,
)
from sasa_tf.ops.target_device import target_device

_LARGEST_HEAD = 128
_MOST_CHANNELS = 4
_MOST_PLACES = 64  # of a block: 8 x 8 pixels


@dataclasses.dataclass(frozen=True)
class _KernelCall:
  """All that the text of a call depends on.

  Attributes:
    element: StableHLO's name for the dtype of the pixels.
    block: (rows, columns).
    channels: C.
    heads: N.
    depth: D.
    platforms: that there are kernels for.
  """

  element: str
  block: tuple[int, int]
  channels: int
  heads: int
  depth: int
  platforms: tuple[str, ...]

  @functools.cached_property
  def forward(self) -> str:
    """Takes pixels, similarity and values; returns the output."""
    return self._module("forward", self._inputs, [self._output])

  @functools.cached_property
  def backward(self) -> str:
    """Takes those and the output's gradient; returns gradients of the last two, and scratch."""
    _, similarity, values = self._inputs
    scratch = Array((_scratch_floats(values.sizes[0], self.channels, self.heads, self.depth),))
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


def _scratch_floats(places: int, channels: int, heads: int, depth: int) -> int:
  """StemWorkspaceFloats of sasa_tf/native/stem_kernels.h."""
  row = -(-depth // 16) * 16
  table = heads * (places * channels * row + 16 * channels**2)
  workers = max(32, min(512, 2**21 // max(table, 1)))
  return workers * table


def refusal(pixels: tf.Tensor | tf.TensorSpec, block: tuple[int, int], depth: int) -> str | None:
  """Returns why the compiled kernels do not serve this call, or None if they do.

  Args:
    pixels: [B, H, W, C].
    block: (rows, columns) of a block.
    depth: D.
  """
  device, loaded = target_device(), library.load()
  if device not in PLATFORMS:
    return f"there are no compiled kernels of attention inside of blocks for a {device}"
  if PLATFORMS[device] not in loaded.platforms:
    return loaded.reason
  if unserved := dtype_refusal(pixels.dtype):
    return unserved
  for name, number, most in (
    ("input channels", pixels.shape[3], _MOST_CHANNELS),
    ("pixels in a block", block[0] * block[1], _MOST_PLACES),
    ("channels in a head", depth, _LARGEST_HEAD),
  ):
    if number > most:
      return f"the compiled kernels take up to {most} {name}, not {number}"
  return None


def attention_of_pixels(
  pixels: tf.Tensor,
  similarity: tf.Tensor,
  values: tf.Tensor,
  block: tuple[int, int],
  stock: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
  """Attends inside of blocks, where `refusal` has no objection.

  Args:
    pixels: x, [B, H, W, C].
    similarity: [N, C, C] float32; the logit of the query p and the key q is x_p similarity[n] x_q.
    values: [P, C, N, D] float32, the value projection of each place.
    block: (rows, columns) of a block, of P places.
    stock: computes the same. The gradient of the pixels, which few need and compilers leave out for
      the others, and second derivatives are its.

  Returns:
    [B, H, W, N, D] in pixels' dtype.
  """
  heads, depth = values.shape[2:]
  platforms = library.load().platforms
  kernel = _KernelCall(ELEMENT_TYPES[pixels.dtype], block, pixels.shape[3], heads, depth, platforms)
  output = (pixels.dtype, [*pixels.shape[:3], heads, depth])

  def stock_gradients(sources, arguments, upstream):
    with tf.GradientTape() as tape:
      tape.watch(sources)
      result = stock(*arguments)
    return tape.gradient(result, sources, upstream)

  @tf.custom_gradient
  def attend(*arguments):
    (result,) = call_module(kernel.forward, platforms, arguments, [output])

    @tf.custom_gradient
    def gradient(*arguments):
      *inputs, upstream = arguments
      found = call_module(
        kernel.backward,
        platforms,
        arguments,
        [(tf.float32, similarity.shape), (tf.float32, values.shape), (tf.float32, [None])],
      )
      (of_pixels,) = stock_gradients(inputs[:1], inputs, upstream)

      def second_gradient(*upstreams):
        with tf.GradientTape() as tape:
          tape.watch(arguments)
          gradients = stock_gradients(inputs, inputs, upstream)
        return tape.gradient(gradients, arguments, upstreams)

      return [of_pixels, *found[:2]], second_gradient

    return result, lambda upstream: gradient(*arguments, upstream)

  return attend(pixels, similarity, values)
