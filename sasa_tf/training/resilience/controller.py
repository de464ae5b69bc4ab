"""Orbit's controller, for runs whose machines fail."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orbit
import tensorflow as tf
from official.modeling import optimization

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.training.resilience import checkpoints
from sasa_tf.training.resilience.preemption import StopRequest

_DISK_PROBLEMS = (
  "No space left on device",
  "Read-only file system",
  "File too large",
  "Disk quota exceeded",
  "Permission denied",
)


class Controller(orbit.Controller):
  """As Orbit's, with these differences.

  * A damaged checkpoint is passed over for the one before it.
  * A loop of steps is told of when the checkpoint begun before it is on the disk, should it be
    written beside the training: what is lost with a killed run is at most one checkpoint interval
    of what was told, and a full disk ends the run.
  * A request to end saves a checkpoint after the loop of steps, or at once between two steps of an
    evaluation, and raises `PreemptedError`.
  """

  def __init__(self, *args: Any, stop: StopRequest, **kwargs: Any):
    """Takes Orbit's arguments, and the request to look at."""
    self._stop = stop
    super().__init__(*args, **kwargs)
    self.train_actions = (lambda output: self._wait_for_checkpoint(), *self.train_actions)
    if self.trainer is not None and self.evaluator is not None:
      self._interrupt_evaluations()

  def restore_checkpoint(self, checkpoint_path: str | None = None) -> str | None:
    """Restores the named checkpoint, by default the last one, or the whole one before it."""
    manager = self.checkpoint_manager
    if checkpoint_path is None or checkpoints.find_corruption(checkpoint_path):
      whole = checkpoints.latest_valid(manager.directory)
      # What the manager itself restores, it also counts its interval from.
      checkpoint_path = whole if whole != manager.latest_checkpoint else None
    return super().restore_checkpoint(checkpoint_path)

  def _train_n_steps(self, num_steps: int) -> None:
    with self._telling_of_the_disk():
      super()._train_n_steps(num_steps)
    if self._stop.received:
      self._save_and_leave()

  def _maybe_save_checkpoint(self, check_interval: bool = True) -> bool:
    try:
      return super()._maybe_save_checkpoint(check_interval)
    except tf.errors.OpError as error:
      raise self._unwritten(error) from error

  def _sync_on_async_checkpointing(self) -> None:
    self._wait_for_checkpoint()

  def _wait_for_checkpoint(self) -> None:
    """Waits for a checkpoint being written; its failure is kept until somebody asks."""
    manager = self.checkpoint_manager
    if manager is None:
      return
    manager.sync()
    asynchronous = getattr(manager.checkpoint, "_async_checkpointer_impl", None)
    if asynchronous is not None:
      try:
        asynchronous._check_async_thread_error()
      except tf.errors.OpError as error:
        raise self._unwritten(error) from error

  @contextlib.contextmanager
  def _telling_of_the_disk(self) -> Iterator[None]:
    """For what writes among other things: summaries, the best checkpoint."""
    try:
      yield
    except tf.errors.OpError as error:
      if not any(problem in error.message for problem in _DISK_PROBLEMS):
        raise
      raise self._unwritten(error) from error

  def _unwritten(self, error: tf.errors.OpError) -> UserError:
    directory = self.checkpoint_manager.directory
    whole = checkpoints.latest_valid(directory)
    # Without the names of operations.
    problem = re.sub(r"\{\{.*?\}\} ?| \[Op:\w+\].*", "", error.message.splitlines()[0])
    return UserError(
      f"step {int(self.global_step.numpy())}: {directory} cannot be written: {problem}. Of the "
      f"earlier checkpoints, {f'{whole} is whole' if whole else 'there is none'}. Make room, or "
      "make the directory writable, and start the same command again."
    )

  def _save_and_leave(self) -> None:
    self._maybe_save_checkpoint(check_interval=False)
    self._wait_for_checkpoint()
    raise PreemptedError(
      f"ended by SIGTERM after step {int(self.global_step.numpy())}, which is saved in "
      f"{self.checkpoint_manager.directory}. The same command goes on from there."
    )

  def evaluate(self, steps: int = -1) -> Mapping[str, Any] | None:
    """Evaluates as Orbit does, unless the run is asked to end."""
    try:
      with self._telling_of_the_disk():
        return super().evaluate(steps)
    except _EvaluationInterrupted:
      optimizer = self.evaluator.optimizer
      # The evaluation had put the averaged weights in the place of those that are trained.
      if isinstance(optimizer, optimization.ExponentialMovingAverage):
        optimizer.swap_weights()
      self._save_and_leave()

  def _interrupt_evaluations(self) -> None:
    """Looks for the request where Orbit collects the output of each step of an evaluation."""
    reduce = self.evaluator.eval_reduce

    def checked(*args, **kwargs):
      if self._stop.received:
        raise _EvaluationInterrupted
      return reduce(*args, **kwargs)

    self.evaluator.eval_reduce = checked


class _EvaluationInterrupted(Exception):  # noqa: N818
  """Leaves Orbit's loop."""
