"""Private APIs of Orbit."""

from __future__ import annotations

import orbit


class HookedController(orbit.Controller):
  """Orbit's controller with public hooks around private steps of its training loop.

  A subclass overrides a hook and calls `super()` for Orbit's behavior.
  """

  def train_n_steps(self, num_steps: int) -> None:
    """Runs one loop of `num_steps` steps, the training actions and the summaries."""
    super()._train_n_steps(num_steps)

  def maybe_save_checkpoint(self, check_interval: bool = True) -> bool:
    """Saves a checkpoint if one is due.

    Args:
      check_interval: whether to save only after the checkpoint interval.

    Returns:
      Whether a checkpoint was saved, or its asynchronous save began.
    """
    return super()._maybe_save_checkpoint(check_interval)

  def wait_for_checkpoint(self) -> None:
    """Waits until an asynchronous save has ended."""
    super()._sync_on_async_checkpointing()

  def _train_n_steps(self, num_steps: int) -> None:
    self.train_n_steps(num_steps)

  def _maybe_save_checkpoint(self, check_interval: bool = True) -> bool:
    return self.maybe_save_checkpoint(check_interval)

  def _sync_on_async_checkpointing(self) -> None:
    self.wait_for_checkpoint()
