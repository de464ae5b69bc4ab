"""Progress of a run for people: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from orbit import utils
from tqdm import tqdm


def _scalars(output: Mapping[str, Any]) -> dict[str, float]:
  """Orbit's nested tensors as floats; what is no scalar is left out."""
  scalars = {}
  for name, value in output.items():
    value = utils.get_value(value)
    if getattr(value, "ndim", 0) == 0:
      scalars[name] = float(value)
  return scalars


def _format(scalars: Mapping[str, float]) -> str:
  return ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())


class TrainingProgress:
  """Orbit actions that show step, speed, remaining time and metrics.

  Attributes:
    evaluation: metrics of the last evaluation, {} before the first.
  """

  def __init__(
    self,
    total_steps: int,
    current_step: Callable[[], int],
    stream: TextIO | None = None,
    seconds_between_lines: float = 10.0,
  ):
    """Starts the clock.

    Args:
      total_steps: at which the training ends.
      current_step: reads the global step.
      stream: where to write; standard output by default, taken when this object is made.
      seconds_between_lines: at most one line in this time where `stream` is no terminal.
    """
    self.evaluation: dict[str, float] = {}
    self._current_step = current_step
    self._stream = stream or sys.stdout
    self._seconds_between_lines = seconds_between_lines
    self._last_line = -float("inf")
    self._bar = None
    self._total_steps = total_steps
    self._first_step = self._start = None

  def begin(self) -> None:
    """Tells where the run starts; to be called when the first step is about to run."""
    self._first_step, self._start = self._current_step(), time.monotonic()
    if self._stream.isatty():
      self._bar = tqdm(
        total=self._total_steps,
        initial=self._first_step,
        desc="train",
        unit="step",
        file=self._stream,
        dynamic_ncols=True,
      )

  def on_train(self, output: Mapping[str, Any]) -> None:
    """Orbit train action: after each loop of steps."""
    step, metrics = self._current_step(), _scalars(output)
    if self._bar is not None:
      self._bar.set_postfix_str(_format(metrics), refresh=False)
      self._bar.update(step - self._bar.n)
      return
    now = time.monotonic()
    if now - self._last_line < self._seconds_between_lines and step < self._total_steps:
      return
    self._last_line = now
    speed = (step - self._first_step) / max(now - self._start, 1e-9)
    remaining = tqdm.format_interval((self._total_steps - step) / max(speed, 1e-9))
    self._write(
      f"train step {step}/{self._total_steps} ({step / self._total_steps:.0%}), {speed:.2f} "
      f"steps/s, ETA {remaining}, {_format(metrics)}"
    )

  def on_evaluate(self, output: Mapping[str, Any]) -> None:
    """Orbit evaluation action: after each evaluation."""
    self.evaluation = _scalars(output)
    self._write(f"evaluation at step {self._current_step()}: {_format(self.evaluation)}")

  def close(self) -> None:
    """Leaves the bar as it stands."""
    if self._bar is not None:
      self._bar.close()

  def _write(self, line: str) -> None:
    if self._bar is not None:
      self._bar.write(line, file=self._stream)
    else:
      print(line, file=self._stream, flush=True)
