"""The printed report: the machine first, then a table for each group."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from sasa_tf.benchmarks.measurement.timing import Summary
from sasa_tf.benchmarks.results.records import Measurement
from sasa_tf.reporting import WIDTH, Table, clip

_MEBIBYTE = 2**20
# Fraction of the step above which the overhead of the loop is reported.
_NOTABLE_OVERHEAD = 0.05


def describe(environment: dict[str, Any]) -> str:
  """Returns machine, device and versions in a few lines."""
  if not environment:
    return "machine   unknown"
  memory = environment["memory_bytes"]
  packages = environment["packages"]
  commit = f" ({environment['commit']})" if environment["commit"] else ""
  device = environment["device"]
  if environment["cuda"]:
    device += f"; built for CUDA {environment['cuda']} and cuDNN {environment['cudnn']}"
    device += f"; driver {environment['driver']}" if environment["driver"] else ""
  lines = {
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
    for name, value in lines.items()
    if value
  )


def milliseconds(seconds: float) -> str:
  """Returns milliseconds with about four digits."""
  value = 1e3 * seconds
  digits = next((n for least, n in ((1000, 0), (100, 1), (10, 2), (0.1, 3)) if value >= least), 4)
  return f"{value:,.{digits}f}"


def _ratio(value: float) -> str:
  return f"{value:.2f}x" if value < 10 else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def _cells(measurement: Measurement, baselines: Sequence[Summary | None]) -> list[str]:
  """Returns the cells after the candidate's name; none if it failed."""
  summary, peak = measurement.summary, measurement.peak_bytes
  if summary is None:
    return []
  model = measurement.case.target == "model"
  if model:
    throughput = f"{measurement.images_per_second:,.1f}"
  elif measurement.required_bytes is None:
    throughput = ""
  else:
    throughput = f"{measurement.required_bytes / summary.median / 1e9:,.2f}"
  return [
    milliseconds(summary.median),
    f"{milliseconds(summary.lower_quartile)} - {milliseconds(summary.upper_quartile)}",
    *("" if base is None else _ratio(base.median / summary.median) for base in baselines),
    throughput,
    "" if peak is None else f"{peak / _MEBIBYTE:,.1f}",
    f"{measurement.parameters:,}" if model and measurement.parameters is not None else "",
    f"{len(measurement.seconds)} x {measurement.steps}",
  ]


def describe_group(measurements: Sequence[Measurement], baselines: Sequence[str]) -> str:
  """Returns the heading, the table and the remarks of a group.

  Args:
    measurements: of one group.
    baselines: names of candidates; each has a column with the speed of the others relative to it.
  """
  summaries = {m.case.candidate: m.summary for m in measurements}
  table = Table(
    [
      "candidate",
      "ms",
      "quartiles",
      *(f"vs {name}" for name in baselines),
      "images/s" if measurements[0].case.target == "model" else "GB/s",
      "peak MiB",
      "parameters",
      "runs x steps",
    ]
  )
  for m in measurements:
    cells = _cells(m, [summaries.get(name) for name in baselines])
    table.add_row(m.case.candidate, *cells, note=None if m.seconds else f"failed: {m.error}")
  lines = [clip(measurements[0].case.describe(), WIDTH), table.to_text()]
  remarks = [f"{m.case.candidate}: {m.error}" for m in measurements if m.seconds and m.error]
  lines += [clip(remark, WIDTH) for remark in remarks]
  notable = [
    f"{m.case.candidate} {milliseconds(m.overhead_seconds)} ms"
    for m in measurements
    if m.seconds and (m.overhead_seconds or 0) > _NOTABLE_OVERHEAD * m.summary.median
  ]
  if notable:
    lines.append(clip(f"including the overhead of the loop: {', '.join(notable)}", WIDTH))
  return "\n".join(lines)


LEGEND = textwrap.fill(
  "ms: time of one step, median of the runs; quartiles: lower and upper quartile of the runs; vs: "
  "speed relative to that candidate; GB/s: bytes that any implementation must move, divided by the "
  "time; peak: inputs, variables, results and temporaries of a step, as counted by TensorFlow's "
  "allocator, which on a CPU does not count temporaries below 256 KiB; runs x steps: number of "
  "runs, interleaved with those of the other candidates, and of steps in each.",
  WIDTH,
)
