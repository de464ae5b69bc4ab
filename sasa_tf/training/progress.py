"""Progress of a run: Orbit actions that show steps, speed and metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from sasa_tf.reporting import ProgressBar, format_metrics
from sasa_tf.training.run_log import scalars


class TrainingProgress:
  """Orbit actions that show the step, the speed, the remaining time and the metrics.

  Attributes:
    current_step: returns the global step.
    evaluation: metrics of the last evaluation, {} before the first.
  """

  def __init__(
    self,
    total_steps: int,
    current_step: Callable[[], int],
    stream: TextIO | None = None,
    seconds_between_lines: float = 10.0,
  ):
    """Creates the actions. `begin` shows the bar.

    Args:
      total_steps: last step of the training.
      current_step: returns the global step.
      stream: where to write; by default the standard output at the time of this call.
      seconds_between_lines: minimum time between two lines in a log.
    """
    self.current_step = current_step
    self.evaluation: dict[str, float] = {}
    self._total_steps = total_steps
    self._stream = stream or sys.stdout
    self._seconds_between_lines = seconds_between_lines
    self._bar: ProgressBar | None = None

  def begin(self) -> None:
    """Shows the bar and starts its timer. Must be called right before the first step."""
    self._bar = ProgressBar(
      self._total_steps,
      "train",
      unit="step",
      initial=self.current_step(),
      stream=self._stream,
      seconds_between_lines=self._seconds_between_lines,
    )

  def on_train(self, output: Mapping[str, Any]) -> None:
    """Training action: shows the step and the metrics after each loop of steps."""
    self._bar.advance_to(self.current_step(), scalars(output))

  def on_evaluate(self, output: Mapping[str, Any]) -> None:
    """Evaluation action: shows the metrics of each evaluation."""
    self.evaluation = scalars(output)
    metrics = format_metrics(self.evaluation)
    self._bar.write(f"evaluation at step {self.current_step()}: {metrics}")

  def close(self) -> None:
    """Closes the bar and leaves it on the terminal."""
    if self._bar is not None:
      self._bar.close()
