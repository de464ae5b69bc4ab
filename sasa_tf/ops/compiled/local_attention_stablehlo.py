"""The custom calls of the local attention kernels, as StableHLO text."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from sasa_tf.native import limits
from sasa_tf.ops.compiled.stablehlo import SIZES, Array, module
from sasa_tf.ops.window import WindowGeometry

PROJECTED_PLATFORMS = ("CUDA",)  # that have the kernels with the projections inside


@dataclasses.dataclass(frozen=True)
class LocalAttentionCall:
  """Everything that the text of the forward and the backward call depends on.

  Attributes:
    element: StableHLO's name for the dtype of query, key and value.
    heads: N.
    depth: D.
    geometry: the window.
    scale: multiplies the query.
    has_key: whether the logits have the content term q.k.
    has_relative: whether the logits have the relative term q.r.
    packed: whether query, key and value are one array [B, H, W, 3, N, D] (2 without keys).
    platforms: platforms that have the kernels, of "CPU" and "CUDA".
    pool_size: the forward kernel also returns the output averaged over blocks of
      pool_size x pool_size pixels; 1 for no pooling.
  """

  element: str
  heads: int
  depth: int
  geometry: WindowGeometry
  scale: float
  has_key: bool
  has_relative: bool
  packed: bool
  platforms: tuple[str, ...]
  pool_size: int = 1

  @functools.cached_property
  def table_shapes(self) -> list[tuple[int, int]]:
    """Shapes of both relative tables; (0, 0) without relative positions."""
    if not self.has_relative:
      return [(0, 0)] * 2
    return [(size, self.depth // 2) for size in self.geometry.kernel_size]

  @functools.cached_property
  def forward(self) -> str:
    """Takes query, key, value and both tables; returns output, LSE and pooled output.

    Packed QKV is passed as query, key and value. Without pooling the pooled output is empty.
    """
    return self._module(
      "forward", [*[self._inputs] * 3, *self._tables], [self._maps, self._lse, self._pooled]
    )

  @functools.cached_property
  def inference(self) -> str:
    """As `forward` with pooling, but output and LSE, which only `backward` needs, are empty."""
    empty = [Array((0,), self.element), Array((0,))]
    return self._module("forward", [*[self._inputs] * 3, *self._tables], [*empty, self._pooled])

  def projected_forward(self, channels: int, saves_lse: bool) -> str:
    """Takes the input of the projections, their kernel and both tables; returns output and LSE.

    Args:
      channels: of the input.
      saves_lse: whether the LSE is not empty.
    """
    return self._module(
      "projected_forward",
      [*self._projection(channels), *self._tables],
      [self._maps, self._lse if saves_lse else Array((0,))],
      PROJECTED_PLATFORMS,
    )

  def projected_backward(self, channels: int) -> str:
    """Takes those, output, LSE and an upstream gradient; returns gradients and scratch memory.

    The first gradient is that of packed QKV, the others are those of the tables.
    """
    return self._module(
      "projected_backward",
      [*self._projection(channels), *self._tables, self._maps, self._lse, self._maps],
      [self._inputs, *self._tables, Array(("%scratch",))],
      PROJECTED_PLATFORMS,
    )

  @functools.cached_property
  def backward(self) -> str:
    """Takes those, output, LSE and an upstream gradient; returns gradients and scratch memory.

    The upstream gradient is that of the pooled output with pooling, else that of the output.
    Gradients of absent arguments are empty; for packed QKV, the first holds all three.
    """
    arguments = [*[self._inputs] * 3, *self._tables, self._maps, self._lse]
    arguments.append(self._maps if self.pool_size == 1 else self._pooled)
    absent, scratch = Array((0,)), Array(("%scratch",))
    key = self._maps if self.has_key and not self.packed else absent
    value = absent if self.packed else self._maps
    return self._module("backward", arguments, [self._inputs, key, value, *self._tables, scratch])

  def _projection(self, channels: int) -> list[Array]:
    """The input of the projections and their kernel."""
    inputs = Array((*SIZES, channels), self.element)
    return [inputs, Array((channels, 3, self.heads, self.depth), self.element)]

  @property
  def _inputs(self) -> Array:
    if not self.packed:
      return self._maps
    parts = 3 if self.has_key else 2
    return Array((*SIZES, parts, self.heads, self.depth), self.element)

  @property
  def _maps(self) -> Array:
    return Array((*SIZES, self.heads, self.depth), self.element)

  @property
  def _pooled(self) -> Array:
    if self.pool_size == 1:
      return Array((0,), self.element)
    sizes = (SIZES[0], "%pooled_height", "%pooled_width", self.heads, self.depth)
    return Array(sizes, self.element)

  @property
  def _lse(self) -> Array:
    return Array((*SIZES, self.heads))

  @property
  def _tables(self) -> list[Array]:
    return [Array(shape) for shape in self.table_shapes]

  @property
  def _attributes(self) -> dict[str, str]:
    rows, columns = self.geometry.kernel_size
    row_rate, column_rate = self.geometry.dilation_rate
    return {
      "kernel_rows": f"{rows} : i64",
      "kernel_columns": f"{columns} : i64",
      "dilation_rows": f"{row_rate} : i64",
      "dilation_columns": f"{column_rate} : i64",
      "mask_border": str(self.geometry.border == "mask").lower(),
      "has_key": str(self.has_key).lower(),
      "has_relative": str(self.has_relative).lower(),
      "scale": f"{float(self.scale):.9e} : f32",
    }

  def _module(
    self,
    name: str,
    arguments: Sequence[Array],
    results: Sequence[Array],
    platforms: Sequence[str] | None = None,
  ) -> str:
    return module(
      f"local_attention_{name}",
      arguments,
      results,
      self._attributes,
      self.platforms if platforms is None else platforms,
      [*self._scratch_size(), *self._pooled_size()],
    )

  def _pooled_size(self) -> list[str]:
    return [
      f"%pool_size = stablehlo.constant dense<{self.pool_size}> : tensor<1xi32>",
      "%pooled_height = stablehlo.divide %height, %pool_size : tensor<1xi32>",
      "%pooled_width = stablehlo.divide %width, %pool_size : tensor<1xi32>",
    ]

  def _scratch_size(self) -> list[str]:
    """Lines that compute WorkspaceFloats of sasa_tf/native/local_attention.h as %scratch."""
    tables = (
      limits.constants()["kTableWorkers"] * sum(self.geometry.kernel_size) * (self.depth // 2)
    )
    return [
      f"%heads = stablehlo.constant dense<{self.heads}> : tensor<1xi32>",
      f"%partial_tables = stablehlo.constant dense<{tables}> : tensor<1xi32>",
      "%pixels = stablehlo.multiply %height, %width : tensor<1xi32>",
      "%all_pixels = stablehlo.multiply %batch, %pixels : tensor<1xi32>",
      "%deltas = stablehlo.multiply %all_pixels, %heads : tensor<1xi32>",
      "%scratch = stablehlo.add %deltas, %partial_tables : tensor<1xi32>",
    ]
