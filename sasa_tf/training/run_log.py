"""Writes the log of a training, see `outputs.run_log`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from orbit import utils

import sasa_tf
from sasa_tf.outputs import provenance
from sasa_tf.outputs.run_log import RUN_LOG_FILE, read_run_log
from sasa_tf.training.memory import peak_memory

_PACKAGES = ("tensorflow", "tf_keras", "tf-models-official", "numpy")


class RunLog:
  """Orbit actions that append one JSON object per event to model_dir/run_log.jsonl."""

  def __init__(
    self,
    model_dir: str | None,
    current_step: Callable[[], int],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Creates the log.

    Args:
      model_dir: directory of the run; None to log nothing.
      current_step: returns the global step.
      clock: returns seconds.
    """
    self._path = None if model_dir is None else os.path.join(model_dir, RUN_LOG_FILE)
    self._current_step, self._clock = current_step, clock
    self._start = clock()

  def begin(self, *, train_steps: int, batch_size: int, parameters: int) -> None:
    """Starts the timer and logs what runs where. Must be called right before the first step.

    Args:
      train_steps: last step of the training.
      batch_size: global batch size.
      parameters: number of trainable weights.
    """
    self._start = self._clock()
    self._append(
      "begin",
      train_steps=train_steps,
      batch_size=batch_size,
      parameters=parameters,
      device=_device(),
      versions={"sasa_tf": sasa_tf.__version__, **provenance.package_versions(_PACKAGES)},
    )

  def on_train(self, output: Mapping[str, Any]) -> None:
    """Training action."""
    self._append("train", metrics=scalars(output), peak_memory=peak_memory())

  def on_evaluate(self, output: Mapping[str, Any]) -> None:
    """Evaluation action."""
    self._append("evaluation", metrics=scalars(output), peak_memory=peak_memory())

  def is_evaluated(self) -> bool:
    """Returns whether the current step was evaluated, by this process or an earlier one."""
    evaluations = read_run_log(os.path.dirname(self._path)).series("evaluation")
    return bool(evaluations) and evaluations[-1]["step"] == self._current_step()

  def end(self) -> None:
    """Logs that the run reached its last step."""
    self._append("end")

  def _append(self, event: str, **values: Any) -> None:
    if self._path is None:
      return
    seconds = round(self._clock() - self._start, 3)
    line = json.dumps({"event": event, "step": self._current_step(), "seconds": seconds, **values})
    # A killed process may not have finished its last line.
    before = "\n" if event == "begin" and tf.io.gfile.exists(self._path) else ""
    with tf.io.gfile.GFile(self._path, "a") as file:
      file.write(f"{before}{line}\n")


def scalars(output: Mapping[str, Any]) -> dict[str, float]:
  """Returns the scalars of Orbit's output as floats."""
  found = {}
  for name, value in output.items():
    value = utils.get_value(value)
    if getattr(value, "ndim", 0) == 0:
      found[name] = float(value)
  return found


def _device() -> str:
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return "CPU"
  return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
