"""The table of what was compiled, a line as soon as it is known."""

from __future__ import annotations

from sasa_tf.analysis.tpu.checks import Result
from sasa_tf.analysis.tpu.compiler import MEMORY

_NAME = 66
_COLUMNS = ("seconds", "argument", "output", "temporary", "code", "total MiB")


def header() -> str:
  """Returns the headings."""
  return f"{'compiled for a TPU v5e core':{_NAME}}" + "".join(f"{c:>10}" for c in _COLUMNS)


def line(result: Result) -> str:
  """Returns one line, or more where the compiler refused."""
  start = f"{result.name:{_NAME}}{result.seconds:10.0f}"
  if result.memory is None:
    return f"{start}  does not compile or fit:\n{result.error}"
  memory = result.memory
  sizes = (
    memory.arguments,
    memory.outputs - memory.shared,
    memory.temporaries,
    memory.code,
    memory.total,
  )
  verdict = "fits" if memory.fits else f"does not fit {MEMORY / 2**30} GiB"
  return start + "".join(f"{size / 2**20:10,.0f}" for size in sizes) + f"  {verdict}"
