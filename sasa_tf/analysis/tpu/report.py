"""The table of compiled programs, printed row by row."""

from __future__ import annotations

from sasa_tf.analysis.tpu.checks import Result
from sasa_tf.analysis.tpu.compiler import MEMORY
from sasa_tf.reporting import Column, Table

_TABLE = Table(
  [
    Column("compiled for a TPU v5e core", "left", 64),
    *(Column(title, min_width=8) for title in ("seconds", "argument", "output", "temporary")),
    *(Column(title, min_width=8) for title in ("code", "total MiB")),
    Column("", "left"),
  ]
)


def header() -> str:
  """Returns the column titles; memory is in MiB."""
  return _TABLE.header_line()


def line(result: Result) -> str:
  """Returns the row of a result, followed by the compiler's message if it does not compile."""
  seconds = f"{result.seconds:.0f}"
  if result.memory is None:
    note = f"does not compile or fit:\n{result.error}"
    return _TABLE.row_line(result.name, seconds, note=note)
  memory = result.memory
  sizes = (
    memory.arguments,
    memory.outputs - memory.shared,
    memory.temporaries,
    memory.code,
    memory.total,
  )
  verdict = "fits" if memory.fits else f"does not fit {MEMORY / 2**30} GiB"
  return _TABLE.row_line(result.name, seconds, *(f"{size / 2**20:,.0f}" for size in sizes), verdict)
