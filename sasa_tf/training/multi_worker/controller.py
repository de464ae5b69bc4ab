"""Orbit's controller for training in several processes, which must all do the same."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.training.experiment import RUN_FILE
from sasa_tf.training.multi_worker import config_sync, worker_failure
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.resilience import checkpoints
from sasa_tf.training.resilience.controller import Controller
from sasa_tf.training.resilience.preemption import StopRequest

_SECONDS_OF_DELAY = 30


class MultiWorkerController(Controller):
  """As ours for a single process, with these differences.

  * All processes go on from the checkpoint that the chief chooses. Model Garden restores the chief
    alone, and the others begin at step 0.
  * A request to end that one of them received ends all of them, with a checkpoint.
  * What is evaluated is what a checkpoint holds: moving statistics of batch norm are averaged over
    the replicas before. Model Garden evaluates those of each replica, and saves their mean.
  """

  def __init__(
    self,
    *args: Any,
    cluster: Cluster,
    model_dir: str,
    strategy: tf.distribute.Strategy,
    stop: StopRequest,
    **kwargs: Any,
  ):
    """Takes Orbit's arguments and these.

    Args:
      *args: Orbit's.
      cluster: processes of the training.
      model_dir: where the chief writes its checkpoints, which every process must see.
      strategy: of the training.
      stop: the request that this process may receive.
      **kwargs: Orbit's.
    """
    self._cluster = cluster
    self._model_dir = model_dir
    super().__init__(*args, strategy=strategy, stop=_SharedStop(stop, strategy), **kwargs)

  def restore_checkpoint(self, checkpoint_path: str | None = None) -> str | None:
    """Restores what the chief restores, all at the same time.

    For the state of the optimizer is made meanwhile, which the chief hands to the others.
    """
    own = ""
    if self._cluster.is_chief:
      own = os.path.basename(checkpoint_path or checkpoints.latest_valid(self._model_dir) or "")
    processes = len(self._cluster.addresses)
    name = config_sync.all_gather_strings(self.strategy, own, processes)[0]
    if self._cluster.is_chief:
      return super().restore_checkpoint(checkpoint_path)
    self._wait_for_file(f"{name}.index" if name else RUN_FILE)
    if not name:
      return super().restore_checkpoint()
    path = os.path.join(self._model_dir, name)
    with self.strategy.scope():
      self.checkpoint_manager.checkpoint.restore(path)
    # As if the manager had restored it: it must save whenever the chief's does, so count the
    # interval from the same step, and know what to go back to if the training diverges.
    self.checkpoint_manager._last_checkpoint_step = int(self.global_step.numpy())
    self.checkpoint_manager._latest_checkpoint = path
    return path

  def _wait_for_file(self, name: str) -> None:
    """Returns when this process sees what the chief wrote, which a network's disk may delay."""
    for _ in range(_SECONDS_OF_DELAY):
      if tf.io.gfile.exists(os.path.join(self._model_dir, name)):
        return
      time.sleep(1)
    raise UserError(
      f"the chief has {name} in its --model_dir, but the {self._cluster} does not find it in "
      f"--model_dir={self._model_dir}. All processes need the same directory, on a file system "
      "that they share."
    )

  def _unwritten(self, error: tf.errors.OpError) -> Exception:
    return worker_failure.worker_lost_error(error, self._cluster) or super()._unwritten(error)

  def evaluate(self, steps: int = -1) -> Mapping[str, Any] | None:
    """Evaluates the same network in every replica."""
    with self.strategy.scope():
      for variable in self.evaluator.model.variables:
        if variable.synchronization == tf.VariableSynchronization.ON_READ:
          variable.assign(variable.read_value())
    return super().evaluate(steps)

  def _interrupt_evaluations(self) -> None:
    """Evaluates to the end: the processes cannot stop within at the same image."""


class _SharedStop(StopRequest):
  """Whether any process was asked to end; all must look at the same time."""

  def __init__(self, own: StopRequest, strategy: tf.distribute.Strategy):
    self._own = own
    self._strategy = strategy

  @property
  def received(self) -> bool:
    """Asks all processes."""
    votes = self._strategy.experimental_distribute_values_from_function(
      lambda context: tf.constant(float(self._own.received))
    )
    return bool(self._strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None) > 0)
