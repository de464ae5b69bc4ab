"""Evaluation beside a training, by a process of its own that follows the checkpoints."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from official.core import train_lib

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.training.resilience import checkpoints

_SECONDS_BETWEEN_LOOKS = 2.0


class CheckpointWatcher:
  """Finds the checkpoints that a training writes, in the order of their steps.

  Attributes:
    interrupted: whether to wait no longer.
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
    """Starts at the first checkpoint that is still there.

    Args:
      directory: where the training writes.
      timeout: seconds to wait for the next checkpoint.
      interrupted: whether to wait no longer.
      sleep: waits for so many seconds.
      clock: seconds since some moment.
    """
    self._directory = directory
    self._timeout = timeout
    self.interrupted = interrupted
    self._sleep = sleep
    self._clock = clock
    self._step = -1  # of the last checkpoint that was handed out or passed over

  def until(self, last_step: int) -> Iterator[str]:
    """Yields each checkpoint once, up to the one of `last_step`, or until interrupted.

    Only checkpoints that the training has named as finished, and that are whole. If the training is
    faster than what is done with them, those that it has deleted meanwhile are passed over.

    Args:
      last_step: with which the training ends.

    Raises:
      UserError: no further checkpoint in the time.
    """
    while self._step < last_step:
      checkpoint = self._wait(last_step)
      if checkpoint is None:
        return
      self._step = checkpoints.step_of(checkpoint)
      problem = checkpoints.find_corruption(checkpoint)
      if problem is None:
        yield checkpoint
      elif self._finished(checkpoint):
        _tell(f"{checkpoint} is damaged and not evaluated: {problem}")
      else:
        _tell(f"{checkpoint} was deleted before it was evaluated; trainer.max_to_keep keeps more")

  def wait_for_first(self) -> None:
    """Returns as soon as there is a checkpoint, or when interrupted.

    Raises:
      UserError: there is none in the time.
    """
    self._wait(last_step=None)

  def _wait(self, last_step: int | None) -> str | None:
    start, told = self._clock(), False
    while not self.interrupted():
      new = [path for path in self._named() if checkpoints.step_of(path) > self._step]
      if new:
        return new[0]
      if self._clock() - start > self._timeout:
        raise UserError(self._timed_out(last_step))
      if not told:
        print(f"waiting for a checkpoint in {self._directory}", flush=True)
        told = True
      self._sleep(_SECONDS_BETWEEN_LOOKS)
    return None

  def _named(self) -> list[str]:
    """What the training has finished; TensorFlow replaces the file that says it in one go."""
    try:
      state = tf.train.get_checkpoint_state(self._directory)
    except tf.errors.OpError:
      return []  # not there yet, or not for the moment on a network's disk
    return sorted(state.all_model_checkpoint_paths, key=checkpoints.step_of) if state else []

  def _finished(self, checkpoint: str) -> bool:
    return checkpoint in self._named()

  def _timed_out(self, last_step: int | None) -> str:
    after = f"after that of step {self._step}" if self._step >= 0 else "at all"
    until = f" (the training ends at step {last_step})" if last_step is not None else ""
    return (
      f"no checkpoint {after} in --model_dir={self._directory} for {self._timeout:g} seconds"
      f"{until}. See whether the training still runs and writes there. To wait longer, raise "
      "trainer.continuous_eval_timeout."
    )


def evaluate_checkpoints(
  runner: train_lib.OrbitExperimentRunner, follower: CheckpointWatcher
) -> None:
  """Evaluates all checkpoints of a training, as they come.

  Args:
    runner: of the mode continuous_eval.
    follower: of the directory of the training.

  Raises:
    UserError: no further checkpoint in the time.
    PreemptedError: SIGTERM ended the process between two evaluations.
  """
  trainer = runner.params.trainer
  with runner.strategy.scope():
    for checkpoint in follower.until(trainer.train_steps):
      runner.controller.restore_checkpoint(checkpoint)
      runner.controller.evaluate(trainer.validation_steps)
  if follower.interrupted():
    raise PreemptedError("ended by SIGTERM between two evaluations. The same command goes on.")


def _tell(message: str) -> None:
  print("warning:", message, file=sys.stderr, flush=True)
