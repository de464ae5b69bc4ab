"""The printed tables of served models: latency by device and batch size, then loading."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence

from sasa_tf.benchmarks.results.report import milliseconds
from sasa_tf.benchmarks.serving.results import ServedResult
from sasa_tf.reporting import WIDTH, Column, Table

_MEBIBYTE = 2**20
# Names of networks and formats are long, and are not clipped.
_TABLE_WIDTH = 120

LEGEND = textwrap.fill(
  "Calls of the signature `prepared` with images of the model's input size, interleaved with those "
  "of the other models of the same runtime, in a process without sasa_tf. ms: percentiles of the "
  "latency; images/s: at the median; vs: speed relative to that network in the same format and "
  "process, median over the rounds; ms in a loop: of a call in a program on the GPU that repeats "
  "it, without the host; difference: of the logits to those before the export (for --exports, to "
  "the first format), over the largest logit; load, first call, peak: each model in a separate "
  "process, beyond the memory of the runtime alone.",
  WIDTH,
)


def describe_latency(results: Sequence[ServedResult]) -> str:
  """Returns the heading and the table of one device and batch size."""
  case, baseline = results[0].case, results[0].baseline
  has_loops = any(each.loop_seconds for each in results)
  table = Table(
    [
      *_LEFT,
      Column("ms p50"),
      Column("p90"),
      Column("p99"),
      Column("images/s"),
      Column(f"vs {baseline}"),
      *((Column("ms in a loop"), Column(f"vs {baseline}")) if has_loops else ()),
      Column("difference"),
      Column("calls"),
    ]
  )
  for each in results:
    if each.latency is None:
      table.add_row(each.case.candidate, each.case.served, note=_reason(each))
      continue
    table.add_row(
      each.case.candidate,
      each.case.served,
      *(milliseconds(each.latency[name]) for name in ("p50", "p90", "p99")),
      f"{each.images_per_second:,.1f}",
      "" if each.speed is None else f"{each.speed:.2f}x",
      *(_loop(each) if has_loops else ()),
      "" if each.difference is None else f"{each.difference:.0e}" if each.difference else "0",
      str(each.calls),
    )
  network = f"{case.network}, " if case.network else ""
  threads = "thread" if case.num_threads == 1 else "threads"
  heading = (
    f"{network}batch {case.batch_size} on the {case.device.upper()}, {case.num_threads} {threads}"
  )
  return f"{heading}\n{table.to_text(_TABLE_WIDTH)}"


def describe_loading(results: Sequence[ServedResult]) -> str:
  """Returns the table of sizes, load times, first calls and peak memory.

  Args:
    results: of any devices and batch sizes; those of a model are equal.
  """
  batch = max((each.peak_batch or 0 for each in results), default=0)
  table = Table(
    [
      *_LEFT,
      Column("MB"),
      Column("load s"),
      Column("first call s"),
      Column(f"peak MiB, batch {batch}" if batch else "peak MiB"),
      Column("runtime", "left"),
    ]
  )
  seen = set()
  for each in results:
    key = (each.case.candidate, each.case.served, each.case.device)
    if key in seen or each.load_seconds is None:
      continue
    seen.add(key)
    peak = "" if each.peak_bytes is None else f"{each.peak_bytes / _MEBIBYTE:,.0f}"
    if peak and each.peak_batch != batch:
      peak = f"(batch {each.peak_batch}) {peak}"
    table.add_row(
      each.case.candidate,
      each.case.served,
      "" if each.num_bytes is None else f"{each.num_bytes / 1e6:,.1f}",
      f"{each.load_seconds:.2f}",
      "" if each.first_call_seconds is None else f"{each.first_call_seconds:.2f}",
      peak,
      each.runtime,
    )
  return table.to_text(_TABLE_WIDTH) if seen else ""


_LEFT = (Column("network", "left"), Column("format", "left"))


def _loop(result: ServedResult) -> tuple[str, str]:
  if not result.loop_seconds:
    return "", ""
  speed = "" if result.loop_speed is None else f"{result.loop_speed:.2f}x"
  return milliseconds(statistics.median(result.loop_seconds)), speed


def _reason(result: ServedResult) -> str:
  """Returns why there is no latency."""
  if result.error is None:
    return f"{result.case.served}: not with batch {result.case.batch_size}"
  return f"{result.case.served}: {result.error}"
