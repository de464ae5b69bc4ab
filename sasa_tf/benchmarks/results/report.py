"""What is printed: the machine at the top, then a table for each group."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from sasa_tf.benchmarks.measurement.summary import Summary
from sasa_tf.benchmarks.results.records import Measurement
from sasa_tf.benchmarks.results.table import WIDTH, clip, format_table

_MEBIBYTE = 2**20
# A loop that takes more of a step than this is worth a remark.
_NOTABLE_OVERHEAD = 0.05


def describe(environment: dict[str, Any]) -> str:
  """Returns machine, device and versions in a few lines."""
  memory = environment["memory_bytes"]
  packages = environment["packages"]
  commit = f" ({environment['commit']})" if environment["commit"] else ""
  device = environment["device"]
  if environment["cuda"]:
    device += f"; CUDA {environment['cuda']}, cuDNN {environment['cudnn']} as built for"
    device += f"; driver {environment['driver']}" if environment["driver"] else ""
  facts = {
    "machine": f"{environment['machine']}, {environment['cores']} cores"
    + (f", {memory / 2**30:.0f} GiB" if memory else "")
    + f", {environment['system']}; load {environment['load_average']} at the start",
    "device": f"{device}; threads: {environment['threads']}",
    "versions": f"sasa_tf {environment['sasa_tf']}{commit}, Python {environment['python']}, "
    + ", ".join(f"{name} {version}" for name, version in packages.items() if version),
    "variables": " ".join(f"{n}={v}" for n, v in environment["variables"].items()),
    "time": environment["timestamp"],
  }
  return "\n".join(
    textwrap.fill(value, WIDTH, initial_indent=f"{name:10}", subsequent_indent=" " * 10)
    for name, value in facts.items()
    if value
  )


def milliseconds(seconds: float) -> str:
  """Returns about four digits."""
  value = 1e3 * seconds
  digits = next((n for least, n in ((1000, 0), (100, 1), (10, 2), (0.1, 3)) if value >= least), 4)
  return f"{value:,.{digits}f}"


def _ratio(value: float) -> str:
  return f"{value:.2f}x" if value < 10 else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def _row(measurement: Measurement, baselines: Sequence[Summary | None]) -> list[str]:
  summary, peak = measurement.summary, measurement.peak_bytes
  row = [measurement.case.contestant]
  if summary is None:
    return row + [""] * (len(baselines) + 6)
  row += [
    milliseconds(summary.median),
    f"{milliseconds(summary.lower_quartile)} - {milliseconds(summary.upper_quartile)}",
    *("" if base is None else _ratio(base.median / summary.median) for base in baselines),
  ]
  model = measurement.case.target == "model"
  if model:
    row.append(f"{measurement.images_per_second:,.1f}")
  else:
    row.append(f"{measurement.required_bytes / summary.median / 1e9:,.2f}")
  row.append("" if peak is None else f"{peak / _MEBIBYTE:,.1f}")
  row.append(f"{measurement.parameters:,}" if model else "")
  return [*row, f"{len(measurement.seconds)} x {measurement.steps}"]


def describe_group(measurements: Sequence[Measurement], baselines: Sequence[str]) -> str:
  """Returns heading, table and remarks of contestants side by side.

  Args:
    measurements: of one group.
    baselines: names of contestants; each gets a column of how many times as fast as it the others
      are.
  """
  summaries = {m.case.contestant: m.summary for m in measurements}
  speed = "images/s" if measurements[0].case.target == "model" else "GB/s"
  headers = [
    "contestant",
    "ms",
    "quartiles",
    *(f"vs {name}" for name in baselines),
    speed,
    "peak MiB",
    "parameters",
    "runs x steps",
  ]
  rows = [_row(m, [summaries.get(name) for name in baselines]) for m in measurements]
  notes = [None if m.seconds else f"failed: {m.error}" for m in measurements]
  heading = clip(measurements[0].case.describe(), WIDTH)
  lines = [heading, format_table(headers, rows, notes)]
  remarks = [f"{m.case.contestant}: {m.error}" for m in measurements if m.seconds and m.error]
  lines += [clip(remark, WIDTH) for remark in remarks]
  notable = [
    f"{m.case.contestant} {milliseconds(m.overhead_seconds)} ms"
    for m in measurements
    if m.seconds and (m.overhead_seconds or 0) > _NOTABLE_OVERHEAD * m.summary.median
  ]
  if notable:
    lines.append(clip(f"of which the loop itself takes: {', '.join(notable)}", WIDTH))
  return "\n".join(lines)


LEGEND = textwrap.fill(
  "ms: of one step, median of the runs; quartiles: a quarter of the runs was faster, a quarter "
  "slower; vs: times as fast as that contestant; GB/s: bytes that any implementation must move, "
  "over time; peak: inputs, variables, results and temporaries of a step, as counted by "
  "TensorFlow's allocator, which on a CPU leaves out temporaries below 256 KiB; runs x steps: "
  "runs, in turn with the other contestants', and steps in each.",
  WIDTH,
)
