"""Measures the exported models of a runtime together, and compares them with convolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sasa_tf.benchmarks.serving.exports import ExportedModel
from sasa_tf.benchmarks.serving.processes import Plan, ProcessResults, run_process
from sasa_tf.benchmarks.serving.results import ServedCase, ServedResult
from sasa_tf.errors import UserError
from sasa_tf.serving.exported import size_of

PEAK_BATCH = 32
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


@dataclasses.dataclass(frozen=True)
class Setting:
  """What the results of one run have in common.

  Attributes:
    device: "cpu" or "gpu".
    plan: how the models are called.
    baseline: candidate that the speeds are relative to.
    network: of `ServedCase`.
    memory: whether load time, first call and peak memory are measured, each model in a process of
      its own.
  """

  device: str
  plan: Plan
  baseline: str
  network: str = ""
  memory: bool = True


def measure_together(
  models: Sequence[ExportedModel],
  setting: Setting,
  expected: dict[str, Mapping[str, np.ndarray]],
  images: np.ndarray | None = None,
) -> list[ServedResult]:
  """Returns the results of models of one runtime, whose calls are interleaved in one process.

  Args:
    models: with equal export formats; those without a path get a result with their error.
    setting: device, plan and baseline.
    expected: {candidate: outputs that its models must return}. The outputs of the first model of a
      candidate without an entry are added.
    images: inputs of these outputs, float32 [B, H, W, 3]; None for noise.
  """
  exported = [each for each in models if each.path is not None]
  found, failure = ProcessResults("", {}, {}), None
  try:
    if exported:
      found = run_process(exported, setting.device, setting.plan, images)
  except UserError as error:
    failure = str(error)
  cold = {}
  if setting.memory and failure is None:
    cold = {each.name: _measure_cold(each, setting) for each in exported}
  differences = _differences(exported, found, expected)
  results = []
  for model in models:
    nothing = {"calls": {}, "loops": {}, "error": model.error or failure}
    measured = found.models.get(model.name, nothing)
    alone = cold.get(model.name, {})
    for batch_size in setting.plan.batch_sizes if model.batch_size is None else [model.batch_size]:
      result = ServedResult(
        case=ServedCase(
          model.candidate,
          model.served.name,
          setting.device,
          batch_size,
          setting.plan.num_threads,
          setting.network,
        ),
        runtime=found.version,
        baseline=setting.baseline,
        difference=differences.get(model.name),
        num_bytes=None if model.path is None else size_of(model.path),
        load_seconds=alone.get("load_seconds"),
        first_call_seconds=alone.get("first_call_seconds"),
        peak_bytes=alone.get("peak_bytes"),
        peak_batch=alone.get("peak_batch"),
        error=measured["error"] or alone.get("error"),
      )
      calls = measured["calls"].get(str(batch_size), [])
      loops = measured["loops"].get(str(batch_size), [])
      results.append(dataclasses.replace(result, loop_seconds=tuple(loops), **_summary(calls)))
  return _with_speeds(results)


def _measure_cold(model: ExportedModel, setting: Setting) -> dict[str, Any]:
  """Returns load time, first call and peak memory of a model in a process of its own."""
  plan = setting.plan._replace(rounds=0, peak_batch=PEAK_BATCH if setting.device == "cpu" else None)
  try:
    return run_process([model], setting.device, plan, None).models[model.name]
  except UserError as error:
    return {"error": str(error)}


def _summary(calls: Sequence[Sequence[float]]) -> dict[str, Any]:
  """Returns medians by round, and percentiles of all calls."""
  if not calls:
    return {}
  every = np.concatenate([np.asarray(each) for each in calls])
  return {
    "seconds": tuple(float(np.median(each)) for each in calls),
    "latency": {name: float(np.percentile(every, p)) for name, p in _PERCENTILES.items()},
    "calls": len(every),
  }


def _with_speeds(results: Sequence[ServedResult]) -> list[ServedResult]:
  """Adds the speeds relative to the baseline in the same format, or without its kernels."""
  by_case = {
    (each.case.candidate, each.case.served, each.case.batch_size): each for each in results
  }

  def with_speed(result: ServedResult) -> ServedResult:
    case = result.case
    for served in (case.served, case.served.partition("/")[0]):
      baseline = by_case.get((result.baseline, served, case.batch_size))
      if baseline and baseline.seconds:
        return dataclasses.replace(
          result,
          speed=_speed(baseline.seconds, result.seconds),
          loop_speed=_speed(baseline.loop_seconds, result.loop_seconds),
        )
    return result

  return [with_speed(each) for each in results]


def _speed(baseline: Sequence[float], own: Sequence[float]) -> float | None:
  """Returns the median over the rounds of the baseline's time over the own one."""
  if not baseline or not own:
    return None
  return float(np.median([base / time for base, time in zip(baseline, own, strict=True)]))


def _differences(
  models: Sequence[ExportedModel],
  found: ProcessResults,
  expected: dict[str, Mapping[str, np.ndarray]],
) -> dict[str, float | None]:
  """Returns {name: difference of its outputs}, and adds outputs to `expected`."""
  differences = {}
  for model in models:
    outputs = found.outputs.get(model.name)
    if outputs is None:
      continue
    if model.candidate in expected:
      differences[model.name] = output_difference(expected[model.candidate], outputs)
    else:
      expected[model.candidate] = outputs
  return differences


def output_difference(
  expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> float | None:
  """Returns the largest difference of logits over the largest logit, or that of scores.

  Args:
    expected: outputs by name.
    found: outputs by name.

  Returns:
    None if there are neither logits nor the scores of detections.
  """
  if "logits" in expected and "logits" in found:
    scale = float(np.abs(expected["logits"]).max())
    return float(np.abs(found["logits"] - expected["logits"]).max()) / scale
  if "detection_scores" in expected and "detection_scores" in found:
    return float(np.abs(found["detection_scores"] - expected["detection_scores"]).max())
  return None
