"""The log of a training: one JSON object per event, which other programs read.

Each process of a training appends an event "begin", then "train" after each loop of steps,
"evaluation" after each evaluation, and "end" if it reaches the last step. `seconds` are since the
"begin" of the same process, which is right before its first step.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, TypedDict

from sasa_tf.outputs.json_types import Count, Finite, Metric, conforms

RUN_LOG_FILE = "run_log.jsonl"

# Loops of a process that include compilation and the autotuning of the input pipeline.
_WARMUP_LOOPS = 1


class PeakMemory(TypedDict):
  """The peak of the memory; `kind` is "device" or "host_rss"."""

  kind: str
  bytes: Count


class _Event(TypedDict):
  event: str
  step: Count
  seconds: Finite


class Event(_Event, total=False):
  """An event. "begin" has the keys from `train_steps` on, others may have the first two."""

  metrics: dict[str, Metric]
  peak_memory: PeakMemory
  train_steps: Count
  batch_size: Count
  parameters: Count
  device: str
  versions: dict[str, str | None]


def read_run_log(model_dir: str | os.PathLike) -> RunLogSummary:
  """Returns the log of a training; without events if there is none.

  Lines that a killed process did not finish, and other invalid ones, are skipped.
  """
  path = pathlib.Path(model_dir, RUN_LOG_FILE)
  if not os.path.isfile(path):  # a pipe would be read forever
    return RunLogSummary([])
  lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
  events = []
  for line in lines:
    try:
      event = json.loads(line)
    except (RecursionError, ValueError):
      continue
    if conforms(event, Event):
      events.append(event)
  return RunLogSummary(events)


class RunLogSummary:
  """What the log of a training says about all of its processes.

  A process resumes at a checkpoint, which may be before the last step of the previous process.
  Events of the previous process after that step are dropped.

  Attributes:
    processes: list of events of each process.
  """

  def __init__(self, events: Sequence[dict[str, Any]]):
    self.processes: list[list[dict[str, Any]]] = []
    for event in events:
      if event["event"] == "begin":
        if self.processes:
          last = self.processes[-1]
          last[1:] = [earlier for earlier in last[1:] if earlier["step"] <= event["step"]]
        self.processes.append([])
      if self.processes:
        self.processes[-1].append(event)

  @property
  def begin(self) -> dict[str, Any]:
    """The last "begin" event, {} without one."""
    return self.processes[-1][0] if self.processes else {}

  @property
  def last_step(self) -> int:
    """The last step that was logged; 0 before the first."""
    return self.processes[-1][-1]["step"] if self.processes else 0

  @property
  def is_finished(self) -> bool:
    """Whether the last process reached the last step."""
    return any(event["event"] == "end" for event in self.processes[-1]) if self.processes else False

  @property
  def seconds(self) -> float:
    """Seconds of training and evaluation, without the start of the processes."""
    return sum(events[-1]["seconds"] for events in self.processes)

  def series(self, kind: str) -> list[dict[str, Any]]:
    """Returns [{"step", "seconds", "metrics"}] of the events of a kind, "train" or "evaluation".

    `seconds` include those of earlier processes.
    """
    found, before = [], 0.0
    for events in self.processes:
      found += [
        {
          "step": event["step"],
          "seconds": round(before + event["seconds"], 3),
          "metrics": event.get("metrics", {}),
        }
        for event in events
        if event["event"] == kind
      ]
      before += events[-1]["seconds"]
    return found

  @property
  def images_per_second(self) -> float | None:
    """Median over the loops of steps, without the first one of each process; None if unknown."""
    speeds = []
    for events in self.processes:
      batch_size = events[0].get("batch_size")
      loops = [
        (events[index - 1], event)
        for index, event in enumerate(events)
        if event["event"] == "train"
      ]
      for previous, event in loops[_WARMUP_LOOPS:]:
        seconds = event["seconds"] - previous["seconds"]
        if batch_size and seconds > 0:
          speeds.append(batch_size * (event["step"] - previous["step"]) / seconds)
    return statistics.median(speeds) if speeds else None

  @property
  def peak_memory(self) -> dict[str, Any] | None:
    """{"kind", "bytes"} of the highest peak of all processes; None without one."""
    peaks = [
      event["peak_memory"]
      for events in self.processes
      for event in events
      if event.get("peak_memory")
    ]
    return max(peaks, key=lambda peak: peak["bytes"]) if peaks else None
