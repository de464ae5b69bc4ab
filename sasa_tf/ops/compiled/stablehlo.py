"""StableHLO text that calls one compiled kernel, for any batch and image size.

Sizes are dynamic in the text, and XLA specializes the module when it compiles it. Each result of
the custom call has an operand that computes its shape, which XLA then removes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

SIZES = ("%batch", "%height", "%width")  # the leading axes of each module's first argument


@dataclasses.dataclass(frozen=True)
class Array:
  """Type of an argument or result; each size is an int or the name of an SSA value."""

  sizes: tuple[int | str, ...]
  element: str = "f32"

  def __str__(self) -> str:
    sizes = [str(size) if isinstance(size, int) else "?" for size in self.sizes]
    return f"tensor<{'x'.join([*sizes, self.element])}>"

  @property
  def layout(self) -> str:
    """Row-major layout: the last axis varies fastest."""
    order = list(range(len(self.sizes)))[::-1]
    return f"dense<{order}> : tensor<{len(order)}xindex>"


_SHAPE_LAYOUT = "dense<0> : tensor<1xindex>"


def module(
  kernel: str,
  arguments: Sequence[Array],
  results: Sequence[Array],
  attributes: Mapping[str, str],
  platforms: Sequence[str],
  sizes: Sequence[str] = (),
  *,
  target: str | None = None,
  size_operands: Sequence[str] = (),
) -> str:
  """Returns a module whose main function passes its arguments to a kernel.

  Args:
    kernel: name of the module, and of the XLA FFI handler in sasa_tf/native/ffi without "sasa_tf_".
    arguments: types of the arguments; the leading axes of the first are `SIZES`.
    results: types of the results, whose sizes are those of the arguments.
    attributes: the handler's attributes, each with its type.
    platforms: platforms that have the kernel, of "CPU" and "CUDA".
    sizes: lines that compute further sizes.
    target: of the custom call, if it is not that handler.
    size_operands: sizes that the kernel takes after its arguments, as arrays of one int32.
  """
  operands = [f"%argument{i}" for i in range(len(arguments))]
  # A module for several platforms gets the platform's index as its first argument.
  platform = ["%platform: tensor<i32>"] if len(platforms) > 1 else []
  parameters = [f"{o}: {a}" for o, a in zip(operands, arguments, strict=True)]
  lines, shapes = [], []
  for axis, size in enumerate(SIZES):
    lines += [
      f"{size}_scalar = stablehlo.get_dimension_size %argument0, dim = {axis} : "
      f"({arguments[0]}) -> tensor<i32>",
      f"{size} = stablehlo.reshape {size}_scalar : (tensor<i32>) -> tensor<1xi32>",
    ]
  lines += sizes
  constants = sorted({size for r in results for size in r.sizes if isinstance(size, int)})
  for constant in constants:
    lines.append(f"%size{constant} = stablehlo.constant dense<{constant}> : tensor<1xi32>")
  for number, result in enumerate(results):
    rank, shape = len(result.sizes), f"%shape{number}"
    axes = [size if isinstance(size, str) else f"%size{size}" for size in result.sizes]
    lines.append(
      f"{shape} = stablehlo.concatenate {', '.join(axes)}, dim = 0 : "
      f"({', '.join(['tensor<1xi32>'] * rank)}) -> tensor<{rank}xi32>"
    )
    shapes.append((shape, f"tensor<{rank}xi32>"))
  kernel_types = [*map(str, arguments), *["tensor<1xi32>"] * len(size_operands)]
  operands += size_operands
  types = ", ".join(itertools.chain(kernel_types, (kind for _, kind in shapes)))
  indices = list(range(len(operands), len(operands) + len(results)))
  vectors = len(size_operands) + len(results)
  layouts = ", ".join([a.layout for a in arguments] + [_SHAPE_LAYOUT] * vectors)
  returned = ", ".join(map(str, results))
  settings = ", ".join(f"{name} = {value}" for name, value in attributes.items())
  lines.append(
    f'%results:{len(results)} = stablehlo.custom_call @"{target or f"sasa_tf_{kernel}"}"'
    f"({', '.join(operands + [shape for shape, _ in shapes])}) {{api_version = 4 : i32, "
    f"backend_config = {{{settings}}}, "
    f"indices_of_shape_operands = dense<{indices}> : tensor<{len(indices)}xi64>, "
    f"operand_layouts = [{layouts}], "
    f"result_layouts = [{', '.join(r.layout for r in results)}]}} : ({types}) -> ({returned})"
  )
  values = ", ".join(f"%results#{i}" for i in range(len(results)))
  lines.append(f"return {values} : {returned}")
  body = "\n    ".join(lines)
  return f"""module @{kernel} attributes {{jax.uses_shape_polymorphism = true}} {{
  func.func public @main({", ".join(platform + parameters)}) -> ({returned}) {{
    {body}
  }}
}}
"""
