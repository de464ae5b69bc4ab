"""Evaluation in a separate process, which follows the checkpoints of a training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from official.core import train_lib

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.training.resilience import checkpoints

_POLL_SECONDS = 2.0


class CheckpointWatcher:
  """Finds the checkpoints that a training writes, in the order of their steps.

  Attributes:
    interrupted: returns whether to stop waiting.
  """

  def __init__(
    self,
    directory: str,
    *,
    timeout: float,
    interrupted: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts at the first existing checkpoint.

    Args:
      directory: checkpoint directory of the training.
      timeout: seconds to wait for the next checkpoint.
      interrupted: returns whether to stop waiting.
      sleep: waits for a number of seconds.
      clock: returns seconds.
    """
    self._directory = directory
    self._timeout = timeout
    self.interrupted = interrupted
    self._sleep = sleep
    self._clock = clock
    self._step = -1  # of the last checkpoint that was yielded or skipped

  def checkpoints_until(self, last_step: int) -> Iterator[str]:
    """Yields each checkpoint once, up to the one of `last_step`, or until interrupted.

    Yields only valid checkpoints that the state file lists as finished. Checkpoints that the
    training has deleted before they could be yielded are skipped.

    Args:
      last_step: last step of the training.

    Raises:
      UserError: no further checkpoint within the timeout.
    """
    while self._step < last_step:
      checkpoint = self._wait(last_step)
      if checkpoint is None:
        return
      self._step = checkpoints.step_of(checkpoint)
      problem = checkpoints.find_corruption(checkpoint)
      if problem is None:
        yield checkpoint
      elif checkpoint in self._recorded():
        _warn(f"{checkpoint} is corrupt and not evaluated: {problem}")
      else:
        _warn(f"{checkpoint} was deleted before it was evaluated; raise trainer.max_to_keep")

  def wait_for_first(self) -> None:
    """Returns as soon as there is a checkpoint, or when interrupted.

    Raises:
      UserError: there is none within the timeout.
      tf.errors.OpError: the remote file system cannot be reached.
    """
    if "://" in self._directory:
      tf.io.gfile.exists(self._directory)
    self._wait(last_step=None)

  def _wait(self, last_step: int | None) -> str | None:
    start, reported = self._clock(), False
    while not self.interrupted():
      new = [path for path in self._recorded() if checkpoints.step_of(path) > self._step]
      if new:
        return new[0]
      if self._clock() - start > self._timeout:
        raise UserError(self._timeout_message(last_step))
      if not reported:
        print(f"waiting for a checkpoint in {self._directory}", flush=True)
        reported = True
      self._sleep(_POLL_SECONDS)
    return None

  def _recorded(self) -> list[str]:
    """Returns the checkpoints of the state file, which TensorFlow replaces atomically."""
    try:
      state = tf.train.get_checkpoint_state(self._directory)
    except (tf.errors.OpError, ValueError):
      return []  # not written yet, or temporarily unavailable on a network file system
    return sorted(state.all_model_checkpoint_paths, key=checkpoints.step_of) if state else []

  def _timeout_message(self, last_step: int | None) -> str:
    after = f"after that of step {self._step}" if self._step >= 0 else "at all"
    until = f" (the training ends at step {last_step})" if last_step is not None else ""
    return (
      f"no checkpoint {after} in --model_dir={self._directory} for {self._timeout:g} seconds"
      f"{until}. Check that the training still runs and writes there. To wait longer, raise "
      "trainer.continuous_eval_timeout."
    )


def evaluate_checkpoints(
  runner: train_lib.OrbitExperimentRunner, watcher: CheckpointWatcher
) -> None:
  """Evaluates all checkpoints of a training as they are written.

  Args:
    runner: runner in mode continuous_eval.
    watcher: watches the directory of the training.

  Raises:
    UserError: no further checkpoint within the timeout.
    PreemptedError: SIGTERM ended the process between two evaluations.
  """
  trainer = runner.params.trainer
  with runner.strategy.scope():
    for checkpoint in watcher.checkpoints_until(trainer.train_steps):
      runner.controller.restore_checkpoint(checkpoint)
      runner.controller.evaluate(trainer.validation_steps)
  if watcher.interrupted():
    raise PreemptedError(
      "ended by SIGTERM between two evaluations. To resume, rerun the same command."
    )


def _warn(message: str) -> None:
  print("warning:", message, file=sys.stderr, flush=True)
