"""Measures the contestants of a group side by side."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.benchmarks.measurement import memory
from sasa_tf.benchmarks.measurement.environment import gpu_name
from sasa_tf.benchmarks.measurement.loop import CalledStep, RepeatedStep, idle_step
from sasa_tf.benchmarks.measurement.summary import Summary
from sasa_tf.benchmarks.measurement.timing import round_robin, turns_for
from sasa_tf.benchmarks.progress import Progress
from sasa_tf.benchmarks.results.records import Measurement
from sasa_tf.benchmarks.workloads.candidates import make_workload
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import Workload

_LONGEST_ERROR = 2000


@dataclasses.dataclass(frozen=True)
class Effort:
  """How thoroughly to measure.

  Attributes:
    rounds: runs of each contestant.
    min_run_seconds: that a run takes at least; its steps are as many as that needs.
    memory: whether to measure peaks too.
  """

  rounds: int
  min_run_seconds: float
  memory: bool

  def count_runs(self, cases: int) -> int:
    """Returns what `measure_group` counts as progress."""
    return cases * (1 + self.rounds + self.memory)


@dataclasses.dataclass
class _Contender:
  """A contestant that is ready to run, or why it is not."""

  case: Case
  workload: Workload | None = None
  program: RepeatedStep | CalledStep | None = None
  turns: int = 0
  compile_seconds: float | None = None
  peak_bytes: int | None = None
  errors: list[str] = dataclasses.field(default_factory=list)
  seconds: list[float] = dataclasses.field(default_factory=list)

  def fail(self, error: Exception, doing: str) -> None:
    """Notes what went wrong and lets go of the device's memory."""
    words = " ".join(str(error).split())[:_LONGEST_ERROR]
    self.errors.append(f"{doing}: {type(error).__name__}: {words}")
    self.workload = self.program = None

  def run(self) -> None:
    """Does all steps of one run."""
    self.program.run(self.turns)


def _loop_is_compiled(case: Case) -> bool:
  """Whether the loop around the step shall be inside of the compiled program; see `loop`."""
  return case.jit and gpu_name() is not None


def _make_program(workload: Workload, case: Case) -> RepeatedStep | CalledStep:
  if case.target == "model":
    return CalledStep(workload.step, workload.inputs, jit=case.jit)
  return RepeatedStep(
    workload.step, workload.inputs, jit=case.jit, compile_loop=_loop_is_compiled(case)
  )


def _prepare(case: Case, effort: Effort) -> _Contender:
  """Builds, compiles and warms a contestant up."""
  contender = _Contender(case)
  doing = "building"
  try:
    contender.workload = make_workload(case)
    doing = "compiling"
    start = time.perf_counter()
    contender.program = _make_program(contender.workload, case)
    signal = contender.program.run(1)
    contender.compile_seconds = time.perf_counter() - start
    doing = "running"
    if math.isnan(signal):
      raise ArithmeticError("the results are not numbers (NaN)")
    contender.turns = turns_for(contender.program.run, effort.min_run_seconds)
  except Exception as error:  # a contestant that fails is a row that says why
    contender.fail(error, doing)
  return contender


def _measure_memory(contender: _Contender) -> None:
  inputs, step = contender.workload.inputs, contender.workload.step
  try:
    if contender.case.target == "model":  # whose inputs are small beside what it computes
      compute = functools.partial(contender.program.run, 1)
    else:
      # The program with the loop holds copies of its inputs; the step alone does not.
      step = tf.function(step, jit_compile=contender.case.jit, autograph=False)
      step = step.get_concrete_function(inputs)

      def compute() -> float:
        return float(tf.reshape(step(inputs)[0], [-1])[0])

    contender.peak_bytes = memory.peak_bytes(compute, contender.workload.held_bytes)
  except Exception as error:  # the time remains to be measured
    contender.errors.append(f"no peak: {type(error).__name__}: {error}")


def _overheads(contenders: Sequence[_Contender], effort: Effort) -> dict[Any, float]:
  """Returns the seconds that the loop takes for a step, by `_loop_key`."""
  found = {}
  for contender in contenders:
    if contender.case.target != "model" and _loop_key(contender) not in found:
      case, inputs = contender.case, contender.workload.inputs
      try:
        idle = RepeatedStep(idle_step, inputs, jit=case.jit, compile_loop=_loop_is_compiled(case))
        idle.run(1)
        turns = turns_for(idle.run, min(effort.min_run_seconds, 0.02))
        runs = dict.fromkeys(range(5), functools.partial(idle.run, turns))
        seconds = [elapsed for _, elapsed in round_robin(runs, 1)]
        found[_loop_key(contender)] = Summary.of(seconds).median / (turns * idle.steps_a_turn)
      except tf.errors.ResourceExhaustedError:
        continue  # not known then; the contestants themselves may still fit
  return found


def _loop_key(contender: _Contender) -> Any:
  return tuple((tuple(x.shape), x.dtype) for x in contender.workload.inputs)


def measure_group(
  cases: Sequence[Case],
  effort: Effort,
  progress: Progress,
  environment: dict[str, Any],
  command: str = "",
) -> list[Measurement]:
  """Measures contestants side by side.

  Args:
    cases: a group, which differs in the contestant alone.
    effort: rounds and length of the runs.
    progress: is told of `effort.count_runs(len(cases))` runs.
    environment: goes into the measurements.
    command: likewise.

  Returns:
    A measurement for each case; where it failed, one that says why.
  """
  heading = f"{cases[0].size} {cases[0].dtype}"
  contenders = []
  for case in cases:
    progress.begin(f"{heading}: compiling {case.contestant}", important=True)
    contenders.append(_prepare(case, effort))
    progress.advance()
  if effort.memory:
    uncounted = memory.refusal()
    if uncounted:
      progress.begin(f"{heading}: no peaks: {uncounted}", important=True)
    for contender in contenders:
      if contender.program is not None and not uncounted:
        progress.begin(f"{heading}: memory of {contender.case.contestant}", important=True)
        _measure_memory(contender)
      progress.advance()
  ready = {c.case.contestant: c for c in contenders if c.program is not None}
  overheads = _overheads(list(ready.values()), effort)
  overhead_of = {name: overheads.get(_loop_key(c)) for name, c in ready.items()}
  progress.advance((len(contenders) - len(ready)) * effort.rounds)
  results = round_robin({name: c.run for name, c in ready.items()}, effort.rounds)
  for number, (name, result) in enumerate(results):
    contender = ready[name]
    if isinstance(result, Exception):
      contender.fail(result, "running")
    else:
      contender.seconds.append(result / (contender.turns * contender.program.steps_a_turn))
    turn = number // max(len(ready), 1) + 1
    progress.begin(f"{heading}: round {min(turn, effort.rounds)} of {effort.rounds}")
    progress.advance()
  measurements = [
    Measurement(
      case=c.case,
      seconds=tuple(c.seconds) if c.program is not None else (),
      steps=c.turns * c.program.steps_a_turn if c.program is not None else 0,
      compile_seconds=c.compile_seconds,
      overhead_seconds=overhead_of.get(c.case.contestant),
      peak_bytes=c.peak_bytes,
      parameters=c.workload.parameters if c.workload is not None else None,
      required_bytes=c.workload.required_bytes if c.workload is not None else None,
      error="; ".join(c.errors) or None,
      environment=environment,
      command=command,
    )
    for c in contenders
  ]
  contenders.clear()
  ready.clear()
  gc.collect()  # models are cycles, and their variables fill the device
  return measurements
