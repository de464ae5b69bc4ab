"""The calls of the compiled kernels, as modules of StableHLO for images of any size.

XLA fills in the sizes when it compiles a module: each result of the custom call has an operand that
computes its shape, and vanishes then.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

from sasa_tf.ops.geometry import WindowGeometry

# Of sasa_tf/native/local_attention.h.
_TABLE_WORKERS = 1024

_SIZES = ("%batch", "%height", "%width")


@dataclasses.dataclass(frozen=True)
class _Array:
  """The type of an argument or result; a size is a number or the name of what computes it."""

  sizes: tuple[int | str, ...]
  element: str = "f32"

  def __str__(self) -> str:
    sizes = [str(size) if isinstance(size, int) else "?" for size in self.sizes]
    return f"tensor<{'x'.join([*sizes, self.element])}>"

  @property
  def layout(self) -> str:
    """The last axis is the fastest."""
    order = list(range(len(self.sizes)))[::-1]
    return f"dense<{order}> : tensor<{len(order)}xindex>"


_SHAPE_LAYOUT = "dense<0> : tensor<1xindex>"


@dataclasses.dataclass(frozen=True)
class KernelCall:
  """All that the text of a call depends on.

  Attributes:
    element: StableHLO's name for the dtype of query, key and value.
    heads: N.
    depth: D.
    geometry: the window.
    scale: multiplies the query.
    has_key: whether there is q.k.
    has_relative: whether there is q.r.
    shared: whether query, key and value are the parts of one array [B, H, W, parts, N, D].
    platforms: as the text has them, of "CPU" and "CUDA".
  """

  element: str
  heads: int
  depth: int
  geometry: WindowGeometry
  scale: float
  has_key: bool
  has_relative: bool
  shared: bool
  platforms: tuple[str, ...]

  @property
  def table_shapes(self) -> list[tuple[int, int]]:
    """Shapes of both relative tables; without them, of nothing."""
    if not self.has_relative:
      return [(0, 0)] * 2
    return [(size, self.depth // 2) for size in self.geometry.kernel_size]

  @functools.cached_property
  def forward(self) -> str:
    """Takes query, key, value and both tables; returns output and log-sum-exp.

    Where one array holds query, key and value, it is all three.
    """
    return self._module("forward", [*[self._inputs] * 3, *self._tables], [self._maps, self._logs])

  @functools.cached_property
  def backward(self) -> str:
    """Takes those, output, log-sum-exp and the output's gradient; returns gradients and scratch.

    The gradients of what is absent, or held by the first, are empty.
    """
    arguments = [*[self._inputs] * 3, *self._tables, self._maps, self._logs, self._maps]
    nothing, scratch = _Array((0,)), _Array(("%scratch",))
    key = self._maps if self.has_key and not self.shared else nothing
    value = nothing if self.shared else self._maps
    return self._module("backward", arguments, [self._inputs, key, value, *self._tables, scratch])

  @property
  def _inputs(self) -> _Array:
    if not self.shared:
      return self._maps
    parts = 3 if self.has_key else 2
    return _Array((*_SIZES, parts, self.heads, self.depth), self.element)

  @property
  def _maps(self) -> _Array:
    return _Array((*_SIZES, self.heads, self.depth), self.element)

  @property
  def _logs(self) -> _Array:
    return _Array((*_SIZES, self.heads))

  @property
  def _tables(self) -> list[_Array]:
    return [_Array(shape) for shape in self.table_shapes]

  @property
  def _attributes(self) -> str:
    rows, columns = self.geometry.kernel_size
    row_rate, column_rate = self.geometry.dilation_rate
    numbers = {
      "kernel_rows": f"{rows} : i64",
      "kernel_columns": f"{columns} : i64",
      "dilation_rows": f"{row_rate} : i64",
      "dilation_columns": f"{column_rate} : i64",
      "mask_border": str(self.geometry.border == "mask").lower(),
      "has_key": str(self.has_key).lower(),
      "has_relative": str(self.has_relative).lower(),
      "scale": f"{float(self.scale):.9e} : f32",
    }
    return ", ".join(f"{name} = {value}" for name, value in numbers.items())

  def _module(self, name: str, arguments: Sequence[_Array], results: Sequence[_Array]) -> str:
    operands = [f"%argument{i}" for i in range(len(arguments))]
    # With several platforms, XLA says first which it is.
    platform = ["%platform: tensor<i32>"] if len(self.platforms) > 1 else []
    parameters = [f"{o}: {a}" for o, a in zip(operands, arguments, strict=True)]
    lines, shapes = [], []
    for axis, size in enumerate(_SIZES):
      lines += [
        f"{size}_scalar = stablehlo.get_dimension_size %argument0, dim = {axis} : "
        f"({arguments[0]}) -> tensor<i32>",
        f"{size} = stablehlo.reshape {size}_scalar : (tensor<i32>) -> tensor<1xi32>",
      ]
    lines += self._scratch_size()
    constants = sorted({size for r in results for size in r.sizes if isinstance(size, int)})
    for size in constants:
      lines.append(f"%size{size} = stablehlo.constant dense<{size}> : tensor<1xi32>")
    for number, result in enumerate(results):
      rank, shape = len(result.sizes), f"%shape{number}"
      sizes = [size if isinstance(size, str) else f"%size{size}" for size in result.sizes]
      lines.append(
        f"{shape} = stablehlo.concatenate {', '.join(sizes)}, dim = 0 : "
        f"({', '.join(['tensor<1xi32>'] * rank)}) -> tensor<{rank}xi32>"
      )
      shapes.append((shape, f"tensor<{rank}xi32>"))
    types = ", ".join(itertools.chain(map(str, arguments), (kind for _, kind in shapes)))
    indices = list(range(len(arguments), len(arguments) + len(results)))
    layouts = ", ".join([a.layout for a in arguments] + [_SHAPE_LAYOUT] * len(results))
    returned = ", ".join(map(str, results))
    lines.append(
      f"%results:{len(results)} = stablehlo.custom_call @sasa_tf_local_attention_{name}"
      f"({', '.join(operands + [shape for shape, _ in shapes])}) {{api_version = 4 : i32, "
      f"backend_config = {{{self._attributes}}}, "
      f"indices_of_shape_operands = dense<{indices}> : tensor<{len(indices)}xi64>, "
      f"operand_layouts = [{layouts}], "
      f"result_layouts = [{', '.join(r.layout for r in results)}]}} : ({types}) -> ({returned})"
    )
    values = ", ".join(f"%results#{i}" for i in range(len(results)))
    lines.append(f"return {values} : {returned}")
    body = "\n    ".join(lines)
    return f"""module @local_attention attributes {{jax.uses_shape_polymorphism = true}} {{
  func.func public @main({", ".join(platform + parameters)}) -> ({returned}) {{
    {body}
  }}
}}
"""

  def _scratch_size(self) -> list[str]:
    """Lines that compute ScratchFloats of sasa_tf/native/local_attention.h as %scratch."""
    tables = _TABLE_WORKERS * sum(self.geometry.kernel_size) * (self.depth // 2)
    return [
      f"%heads = stablehlo.constant dense<{self.heads}> : tensor<1xi32>",
      f"%partial_tables = stablehlo.constant dense<{tables}> : tensor<1xi32>",
      "%pixels = stablehlo.multiply %height, %width : tensor<1xi32>",
      "%pixels_of_all = stablehlo.multiply %batch, %pixels : tensor<1xi32>",
      "%deltas = stablehlo.multiply %pixels_of_all, %heads : tensor<1xi32>",
      "%scratch = stablehlo.add %deltas, %partial_tables : tensor<1xi32>",
    ]
