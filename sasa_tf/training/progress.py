"""Progress of a run: Orbit actions that show steps, speed and metrics."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from sasa_tf.reporting import ProgressBar, format_metrics, format_speed
from sasa_tf.training.memory import memory_text
from sasa_tf.training.run_log import scalars

# The speed is that of the last loops of steps, without evaluations and the first loop.
_NUM_LOOPS = 20


class TrainingProgress:
  """Orbit actions that show the step, the speed, the remaining time, the memory and the metrics.

  Steps and images per second are those of the training alone. The remaining time includes the
  evaluations.

  Attributes:
    current_step: returns the global step.
    evaluation: metrics of the last evaluation, {} before the first.
  """

  def __init__(
    self,
    total_steps: int,
    current_step: Callable[[], int],
    batch_size: int,
    stream: TextIO | None = None,
    seconds_between_lines: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Creates the actions. `begin` shows the bar.

    Args:
      total_steps: last step of the training.
      current_step: returns the global step.
      batch_size: global batch size.
      stream: where to write; by default the standard output at the time of this call.
      seconds_between_lines: minimum time between two lines in a log.
      clock: returns seconds.
    """
    self.current_step = current_step
    self.evaluation: dict[str, float] = {}
    self._total_steps, self._batch_size, self._clock = total_steps, batch_size, clock
    self._stream = stream or sys.stdout
    self._seconds_between_lines = seconds_between_lines
    self._bar: ProgressBar | None = None
    self._last_step, self._last_time = 0, 0.0
    # (steps, seconds) of the last loops; None until the first one has ended.
    self._loops: collections.deque[tuple[int, float]] | None = None

  def begin(self) -> None:
    """Shows the bar and starts its timer. Must be called right before the first step."""
    self._last_step, self._last_time = self.current_step(), self._clock()
    self._bar = ProgressBar(
      self._total_steps,
      "train",
      unit="step",
      initial=self._last_step,
      stream=self._stream,
      seconds_between_lines=self._seconds_between_lines,
      warmup=True,
      clock=self._clock,
    )

  def on_train(self, output: Mapping[str, Any]) -> None:
    """Training action: shows the step and the metrics after each loop of steps."""
    step, now = self.current_step(), self._clock()
    if self._loops is None:
      self._loops = collections.deque(maxlen=_NUM_LOOPS)
    else:
      self._loops.append((step - self._last_step, now - self._last_time))
    self._last_step, self._last_time = step, now
    self._bar.advance_to(step, scalars(output), speed=self._speed_text(), notes=[memory_text()])

  def on_evaluate(self, output: Mapping[str, Any]) -> None:
    """Evaluation action: shows the metrics of each evaluation."""
    self.evaluation = scalars(output)
    metrics = format_metrics(self.evaluation)
    self._bar.write(f"evaluation at step {self.current_step()}: {metrics}")
    self._last_time = self._clock()

  def _speed_text(self) -> str | None:
    if not self._loops:
      return None
    steps, seconds = map(sum, zip(*self._loops, strict=True))
    per_second = steps / max(seconds, 1e-9)
    images = format_speed(per_second * self._batch_size, "image")
    return f"{format_speed(per_second, 'step')}, {images}"

  def close(self) -> None:
    """Closes the bar and leaves it on the terminal."""
    if self._bar is not None:
      self._bar.close()
