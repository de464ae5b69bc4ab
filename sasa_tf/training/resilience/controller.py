"""Orbit's controller with support for preemption, corrupt checkpoints and write errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from official.modeling import optimization

from sasa_tf.compat import tensorflow as tensorflow_compat
from sasa_tf.compat.glob_free_paths import glob_free_path
from sasa_tf.compat.orbit import HookedController
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


class Controller(HookedController):
  """Orbit's controller, with these differences.

  * A corrupt checkpoint is skipped, and the one before it is restored.
  * A loop of steps is reported only after the checkpoint that was begun before it is on disk, even
    if it is written asynchronously. A killed run therefore loses at most one checkpoint interval of
    what was reported, and a full disk ends the run.
  * On a stop request, the controller saves a checkpoint after the current loop of steps, or between
    two steps of an evaluation, and raises `PreemptedError`.
  """

  def __init__(self, *args: Any, stop: StopRequest, **kwargs: Any):
    """Creates the controller.

    Args:
      *args: arguments of Orbit's controller.
      stop: request to check between steps.
      **kwargs: keyword arguments of Orbit's controller.
    """
    self._stop = stop
    tensorflow_compat.hide_async_checkpoint_errors()
    super().__init__(*args, **kwargs)
    self.train_actions = (lambda output: self.wait_for_checkpoint(), *self.train_actions)
    if self.trainer is not None and self.evaluator is not None:
      self._make_evaluation_interruptible()

  def restore_checkpoint(self, checkpoint_path: str | None = None) -> str | None:
    """Restores the given checkpoint, or the latest valid one if it is None or corrupt.

    Raises:
      UserError: it is not a checkpoint of this model.
    """
    manager = self.checkpoint_manager
    if checkpoint_path is not None:
      checkpoint_path = glob_free_path(checkpoint_path)
    if checkpoint_path is None or checkpoints.find_corruption(checkpoint_path):
      valid = checkpoints.latest_valid(manager.directory)
      self._check_objects(valid)
      # If the manager restores the checkpoint itself, it also counts its interval from it.
      checkpoint_path = valid if valid != manager.latest_checkpoint else None
    else:
      self._check_objects(checkpoint_path)
    return super().restore_checkpoint(checkpoint_path)

  def _check_objects(self, checkpoint: str | None) -> None:
    """Raises `UserError` if the checkpoint does not hold what is to be restored."""
    if checkpoint is None:
      return
    root = self.checkpoint_manager.checkpoint
    objects = tf.train.TrackableView(root).children(root)
    # TensorFlow's number of saves, which nothing depends on.
    objects.pop("save_counter", None)
    with self.strategy.scope():
      checkpoints.check_objects(glob_free_path(checkpoint), objects, train=self.trainer is not None)

  def train_n_steps(self, num_steps: int) -> None:
    """Runs one loop of steps; then saves and raises `PreemptedError` on a stop request."""
    with self._translate_disk_errors():
      super().train_n_steps(num_steps)
    if self._stop.received:
      self._save_and_raise()

  def maybe_save_checkpoint(self, check_interval: bool = True) -> bool:
    """Saves a checkpoint if one is due.

    Raises:
      UserError: it cannot be written.
    """
    try:
      return super().maybe_save_checkpoint(check_interval)
    except tf.errors.OpError as error:
      raise self._write_error(error) from error

  def wait_for_checkpoint(self) -> None:
    """Waits until an asynchronous save has ended.

    Raises:
      UserError: the checkpoint could not be written.
    """
    manager = self.checkpoint_manager
    if manager is None:
      return
    manager.sync()
    try:
      tensorflow_compat.raise_async_checkpoint_error(manager.checkpoint)
    except tf.errors.OpError as error:
      raise self._write_error(error) from error

  @contextlib.contextmanager
  def _translate_disk_errors(self) -> Iterator[None]:
    """Translates the errors of other writes: summaries and the best checkpoint."""
    try:
      yield
    except tf.errors.OpError as error:
      if not any(problem in error.message for problem in _DISK_PROBLEMS):
        raise
      raise self._write_error(error) from error

  def _write_error(self, error: tf.errors.OpError) -> Exception:
    directory = self.checkpoint_manager.directory
    valid = checkpoints.latest_valid(directory)
    # Without the names of operations.
    problem = re.sub(r"\{\{.*?\}\} ?| \[Op:\w+\].*", "", error.message.splitlines()[0])
    return UserError(
      f"step {int(self.global_step.numpy())}: {directory} cannot be written: {problem}. "
      f"{f'The latest valid checkpoint is {valid}' if valid else 'There is no valid checkpoint'}. "
      f"{_cure(problem)}, and rerun the same command to resume."
    )

  def _save_and_raise(self) -> None:
    self.maybe_save_checkpoint(check_interval=False)
    self.wait_for_checkpoint()
    raise PreemptedError(
      f"ended by SIGTERM after step {int(self.global_step.numpy())}, which is saved in "
      f"{self.checkpoint_manager.directory}. To resume, rerun the same command."
    )

  def evaluate(self, steps: int = -1) -> Mapping[str, Any] | None:
    """Evaluates as Orbit does; on a stop request, saves and raises `PreemptedError`."""
    try:
      with self._translate_disk_errors():
        return super().evaluate(steps)
    except _EvaluationInterrupted:
      optimizer = self.evaluator.optimizer
      # The evaluation had swapped the averaged weights in.
      if isinstance(optimizer, optimization.ExponentialMovingAverage):
        optimizer.swap_weights()
      self._save_and_raise()

  def _make_evaluation_interruptible(self) -> None:
    """Checks for a stop request where Orbit reduces the output of each evaluation step."""
    reduce = self.evaluator.eval_reduce

    def checked(*args, **kwargs):
      if self._stop.received:
        raise _EvaluationInterrupted
      return reduce(*args, **kwargs)

    self.evaluator.eval_reduce = checked


def _cure(problem: str) -> str:
  if "File too large" in problem:
    return "Raise the limit of file sizes (ulimit -f)"
  return "Free disk space, or make the directory writable"


class _EvaluationInterrupted(Exception):  # noqa: N818
  """Leaves Orbit's evaluation loop."""
