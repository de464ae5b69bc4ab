"""Measures exported models in fresh processes that cannot import sasa_tf."""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sasa_tf.benchmarks.serving.exports import ExportedModel
from sasa_tf.serving.child_process import run_child_process, script_command
from sasa_tf.serving.runtimes.registry import MEASURE_MODELS, RUNTIMES

_TIME_LIMIT_SECONDS = 7200.0


class Plan(NamedTuple):
  """How the models of a process are called; see `measure_models`.

  Attributes:
    batch_sizes: of the calls.
    num_threads: of an operation on the CPU.
    rounds: of interleaved calls; 0 for none.
    min_run_seconds: minimum duration of the calls of a model in a round.
    peak_batch: batch size whose peak memory is measured, or None.
  """

  batch_sizes: Sequence[int]
  num_threads: int
  rounds: int
  min_run_seconds: float
  peak_batch: int | None = None


class ProcessResults(NamedTuple):
  """What a process measured.

  Attributes:
    version: name and version of the runtime.
    models: {name: values}, see `measure_models`.
    outputs: {name: {output: array [B, ...]}}.
  """

  version: str
  models: dict[str, dict[str, Any]]
  outputs: dict[str, dict[str, np.ndarray]]


def run_process(
  models: Sequence[ExportedModel], device: str, plan: Plan, images: np.ndarray | None
) -> ProcessResults:
  """Measures models of one runtime in a fresh process.

  Args:
    models: with equal export formats; all have a path.
    device: "cpu" or "gpu".
    plan: how they are called.
    images: inputs of `outputs`, float32 [B, H, W, 3]; None for noise.

  Raises:
    UserError: the process fails, crashes or exceeds the time limit.
  """
  runtime = RUNTIMES[models[0].served.export_format]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if images is not None:
      np.save(folder / "images.npy", images)
    (folder / "plan.json").write_text(
      json.dumps(
        {
          "models": [
            {
              "name": each.name,
              "path": str(each.path.absolute()),
              "signature": each.served.signature,
            }
            for each in models
          ],
          "images": None if images is None else str(folder / "images.npy"),
          "batch_sizes": list(plan.batch_sizes),
          "num_threads": plan.num_threads,
          "rounds": plan.rounds,
          "seconds": plan.min_run_seconds,
          "peak_batch": plan.peak_batch,
        }
      )
    )
    files = [folder / name for name in ("plan.json", "results.json", "outputs.npz")]
    run_child_process(
      script_command(MEASURE_MODELS, runtime.adapter, *files),
      failure=f"{runtime.name} cannot run these models",
      time_limit_seconds=_TIME_LIMIT_SECONDS,
      environment={"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {},
    )
    measured = json.loads((folder / "results.json").read_text())
    outputs: dict[str, dict[str, np.ndarray]] = {}
    with np.load(folder / "outputs.npz") as found:
      for key in found.files:
        model, _, output = key.rpartition("/")
        outputs.setdefault(model, {})[output] = found[key]
  return ProcessResults(measured["version"], measured["models"], outputs)
