"""Triton IR of a kernel, which TensorFlow 2.20 and later compile as part of an XLA program."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.native.portable import KERNEL_NAME


def triton_module(assembly: str, elements: Sequence[str], threads: int) -> str:
  """Returns a Triton module whose kernel is inline assembly.

  Triton runs the assembly once for each element of a tensor. The tensors have one element per
  thread of the CTA, so that each thread runs it once.

  Args:
    assembly: of `ptx.inline_assembly`.
    elements: the element types of the arrays that the kernel takes, such as "bf16".
    threads: of a CTA, 32 times a power of two.
  """
  tensor = f"tensor<{threads}xi64>"
  # XLA needs attributes of the parameters. Its buffers are aligned to 16 bytes and more.
  parameters = ", ".join(
    f"%array{i}: !tt.ptr<{kind}> {{tt.divisibility = 16 : i32}}" for i, kind in enumerate(elements)
  )
  lines = []
  for i, kind in enumerate(elements):
    lines += [
      f"%address{i} = tt.ptr_to_int %array{i} : !tt.ptr<{kind}> -> i64",
      f"%pointer{i} = tt.splat %address{i} : i64 -> {tensor}",
    ]
  count = len(elements)
  pointers = ", ".join(f"%pointer{i}" for i in range(count))
  lines += [
    f'%zero = tt.elementwise_inline_asm "{assembly}" {{constraints = "=r{",l" * count}", '
    f"packed_element = 1 : i32, pure = false}} {pointers} : {', '.join([tensor] * count)} "
    f"-> tensor<{threads}xi32>",
    "tt.return",
  ]
  body = "\n    ".join(lines)
  return f"""module {{
  tt.func public @{KERNEL_NAME}({parameters}) attributes {{noinline = false}} {{
    {body}
  }}
}}
"""
