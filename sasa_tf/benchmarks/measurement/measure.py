"""Measures the candidates of a group, interleaved."""

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
from sasa_tf.benchmarks.measurement.timing import Summary, iterations_for, round_robin
from sasa_tf.benchmarks.results.records import Measurement
from sasa_tf.benchmarks.workloads.candidates import make_workload
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import Workload
from sasa_tf.reporting import ProgressBar

_MAX_ERROR_LENGTH = 2000


@dataclasses.dataclass(frozen=True)
class MeasurementPlan:
  """Number and length of the runs.

  Attributes:
    rounds: number of runs of each candidate.
    min_run_seconds: minimum duration of a run, which determines its number of steps.
    memory: whether to measure peak memory too.
  """

  rounds: int
  min_run_seconds: float
  memory: bool

  def count_runs(self, cases: int) -> int:
    """Returns the number of progress items of `measure_group` for so many cases."""
    return cases * (1 + self.rounds + self.memory)


@dataclasses.dataclass
class _PreparedCandidate:
  """A candidate that is ready to run, or the reason why it is not."""

  case: Case
  workload: Workload | None = None
  program: RepeatedStep | CalledStep | None = None
  iterations: int = 0
  compile_seconds: float | None = None
  peak_bytes: int | None = None
  errors: list[str] = dataclasses.field(default_factory=list)
  seconds: list[float] = dataclasses.field(default_factory=list)

  def fail(self, error: Exception, activity: str) -> None:
    """Records an error and frees the device's memory."""
    message = " ".join(str(error).split())[:_MAX_ERROR_LENGTH]
    self.errors.append(f"{activity}: {type(error).__name__}: {message}")
    self.workload = self.program = None

  def run(self) -> None:
    """Executes all steps of one run."""
    self.program.run(self.iterations)

  def measurement(
    self, overhead_seconds: float | None, environment: dict[str, Any], command: str
  ) -> Measurement:
    """Returns the results of all runs."""
    failed = self.program is None
    return Measurement(
      case=self.case,
      seconds=() if failed else tuple(self.seconds),
      steps=0 if failed else self.iterations * self.program.steps_per_iteration,
      compile_seconds=self.compile_seconds,
      overhead_seconds=overhead_seconds,
      peak_bytes=self.peak_bytes,
      parameters=self.workload.parameters if self.workload is not None else None,
      required_bytes=self.workload.required_bytes if self.workload is not None else None,
      error="; ".join(self.errors) or None,
      environment=environment,
      command=command,
    )


def _compiles_loop(case: Case) -> bool:
  """Returns whether the loop around the step is part of the compiled program; see `loop`."""
  return case.jit and gpu_name() is not None


def _make_program(workload: Workload, case: Case) -> RepeatedStep | CalledStep:
  if case.target == "model":
    return CalledStep(workload.step, workload.inputs, jit=case.jit)
  return RepeatedStep(
    workload.step, workload.inputs, jit=case.jit, compile_loop=_compiles_loop(case)
  )


def _prepare(case: Case, plan: MeasurementPlan) -> _PreparedCandidate:
  """Builds, compiles and warms up a candidate."""
  candidate = _PreparedCandidate(case)
  activity = "building"
  try:
    candidate.workload = make_workload(case)
    activity = "compiling"
    start = time.perf_counter()
    candidate.program = _make_program(candidate.workload, case)
    signal = candidate.program.run(1)
    candidate.compile_seconds = time.perf_counter() - start
    activity = "running"
    if math.isnan(signal):
      raise ArithmeticError("the results contain NaN")
    candidate.iterations = iterations_for(candidate.program.run, plan.min_run_seconds)
  except Exception as error:  # reported in the row of the candidate
    candidate.fail(error, activity)
  return candidate


def _measure_memory(candidate: _PreparedCandidate) -> None:
  inputs, step = candidate.workload.inputs, candidate.workload.step
  try:
    if candidate.case.target == "model":  # whose inputs are small compared to its activations
      compute = functools.partial(candidate.program.run, 1)
    else:
      # The program with the loop holds copies of its inputs; the step alone does not.
      step = tf.function(step, jit_compile=candidate.case.jit, autograph=False)
      step = step.get_concrete_function(inputs)

      def compute() -> float:
        return float(tf.reshape(step(inputs)[0], [-1])[0])

    candidate.peak_bytes = memory.peak_bytes(compute, candidate.workload.resident_bytes)
  except Exception as error:  # the time can still be measured
    candidate.errors.append(f"no peak: {type(error).__name__}: {error}")


def _loop_overheads(
  candidates: Sequence[_PreparedCandidate], plan: MeasurementPlan
) -> dict[Any, float]:
  """Returns the overhead of the loop in seconds per step, by `_loop_key`."""
  overheads = {}
  for candidate in candidates:
    if candidate.case.target != "model" and _loop_key(candidate) not in overheads:
      case, inputs = candidate.case, candidate.workload.inputs
      try:
        idle = RepeatedStep(idle_step, inputs, jit=case.jit, compile_loop=_compiles_loop(case))
        idle.run(1)
        iterations = iterations_for(idle.run, min(plan.min_run_seconds, 0.02))
        runs = dict.fromkeys(range(5), functools.partial(idle.run, iterations))
        seconds = [elapsed for _, elapsed in round_robin(runs, 1)]
        steps = iterations * idle.steps_per_iteration
        overheads[_loop_key(candidate)] = Summary.of(seconds).median / steps
      except tf.errors.ResourceExhaustedError:
        continue  # unknown; the candidates themselves may still fit
  return overheads


def _loop_key(candidate: _PreparedCandidate) -> Any:
  return tuple((tuple(x.shape), x.dtype) for x in candidate.workload.inputs)


def _measure_peaks(
  candidates: Sequence[_PreparedCandidate], progress: ProgressBar, heading: str
) -> None:
  unsupported = memory.unsupported_reason()
  if unsupported:
    progress.set_status(f"{heading}: no peaks: {unsupported}", important=True)
  for candidate in candidates:
    if candidate.program is not None and not unsupported:
      progress.set_status(f"{heading}: memory of {candidate.case.candidate}", important=True)
      _measure_memory(candidate)
    progress.advance()


def measure_group(
  cases: Sequence[Case],
  plan: MeasurementPlan,
  progress: ProgressBar,
  environment: dict[str, Any],
  command: str = "",
) -> list[Measurement]:
  """Measures the candidates of a group.

  Args:
    cases: a group; its cases differ only in the candidate.
    plan: number and length of the runs.
    progress: advances by `plan.count_runs(len(cases))` items.
    environment: stored in the measurements.
    command: stored in the measurements.

  Returns:
    A measurement for each case. Where the candidate failed, it holds the error.
  """
  heading = f"{cases[0].size} {cases[0].dtype}"
  candidates = []
  for case in cases:
    progress.set_status(f"{heading}: compiling {case.candidate}", important=True)
    candidates.append(_prepare(case, plan))
    progress.advance()
  if plan.memory:
    _measure_peaks(candidates, progress, heading)
  ready = {c.case.candidate: c for c in candidates if c.program is not None}
  overheads = _loop_overheads(list(ready.values()), plan)
  overhead_of = {name: overheads.get(_loop_key(c)) for name, c in ready.items()}
  progress.advance((len(candidates) - len(ready)) * plan.rounds)
  results = round_robin({name: c.run for name, c in ready.items()}, plan.rounds)
  for number, (name, result) in enumerate(results):
    candidate = ready[name]
    if isinstance(result, Exception):
      candidate.fail(result, "running")
    else:
      steps = candidate.iterations * candidate.program.steps_per_iteration
      candidate.seconds.append(result / steps)
    current_round = min(number // max(len(ready), 1) + 1, plan.rounds)
    progress.set_status(f"{heading}: round {current_round} of {plan.rounds}")
    progress.advance()
  measurements = [
    c.measurement(overhead_of.get(c.case.candidate), environment, command) for c in candidates
  ]
  candidates.clear()
  ready.clear()
  gc.collect()  # models are reference cycles, and their variables fill the device
  return measurements
