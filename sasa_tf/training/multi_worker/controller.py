"""The controller for training with several processes, which must all make the same decisions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from sasa_tf.compat import tensorflow as tensorflow_compat
from sasa_tf.compat.glob_free_paths import glob_free_path
from sasa_tf.errors import UserError
from sasa_tf.training.experiment import RUN_FILE
from sasa_tf.training.multi_worker import config_sync, worker_failure
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.resilience import checkpoints
from sasa_tf.training.resilience.controller import Controller
from sasa_tf.training.resilience.preemption import StopRequest

_MAX_FILE_DELAY_SECONDS = 30


class MultiWorkerController(Controller):
  """The controller of a single process, with these differences.

  * All processes restore the checkpoint that the chief selects. Model Garden restores it in the
    chief only, and the other workers start at step 0.
  * A stop request to one process stops all of them, after a checkpoint.
  * An evaluation uses the weights that a checkpoint would have: the moving statistics of batch
    normalization are averaged over the replicas first. Model Garden evaluates each replica with its
    own statistics, and saves their mean.
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
    """Creates the controller.

    Args:
      *args: arguments of Orbit's controller.
      cluster: processes of the training.
      model_dir: directory of the chief's checkpoints, which every process must be able to read.
      strategy: strategy of the training.
      stop: stop request to this process.
      **kwargs: keyword arguments of Orbit's controller.
    """
    self._cluster = cluster
    self._model_dir = model_dir
    super().__init__(*args, strategy=strategy, stop=_SharedStopRequest(stop, strategy), **kwargs)

  def restore_checkpoint(self, checkpoint_path: str | None = None) -> str | None:
    """Restores the chief's checkpoint in all processes, which must call this at the same time.

    Restoring creates the optimizer's variables, which the chief broadcasts to the other workers.
    """
    own_name = ""
    if self._cluster.is_chief:
      path = checkpoint_path or checkpoints.latest_valid(self._model_dir) or ""
      own_name = os.path.basename(path)
    num_processes = len(self._cluster.addresses)
    name = config_sync.all_gather_strings(self.strategy, own_name, num_processes)[0]
    if self._cluster.is_chief:
      return super().restore_checkpoint(checkpoint_path)
    self._wait_for_file(f"{name}.index" if name else RUN_FILE)
    if not name:
      return super().restore_checkpoint()
    path = glob_free_path(os.path.join(self._model_dir, name))
    self._check_objects(path)
    with self.strategy.scope():
      self.checkpoint_manager.checkpoint.restore(path)
    # Workers must save when the chief does, and restore the same checkpoint after a divergence.
    tensorflow_compat.set_restored_checkpoint(
      self.checkpoint_manager, path, int(self.global_step.numpy())
    )
    return path

  def _wait_for_file(self, name: str) -> None:
    """Waits until the chief's file is visible here. A network file system may delay it."""
    for _ in range(_MAX_FILE_DELAY_SECONDS):
      if tf.io.gfile.exists(os.path.join(self._model_dir, name)):
        return
      time.sleep(1)
    raise UserError(
      f"the chief has {name} in its --model_dir, but the {self._cluster} does not find it in "
      f"--model_dir={self._model_dir}. All processes need the same directory on a shared file "
      "system."
    )

  def _write_error(self, error: tf.errors.OpError) -> Exception:
    return worker_failure.worker_lost_error(error, self._cluster) or super()._write_error(error)

  def evaluate(self, steps: int = -1) -> Mapping[str, Any] | None:
    """Evaluates the same weights and statistics in every replica."""
    with self.strategy.scope():
      for variable in self.evaluator.model.variables:
        if variable.synchronization == tf.VariableSynchronization.ON_READ:
          variable.assign(variable.read_value())
    return super().evaluate(steps)

  def _make_evaluation_interruptible(self) -> None:
    """Does nothing: the processes could not all stop at the same step of an evaluation."""


class _SharedStopRequest(StopRequest):
  """Whether any process was asked to stop. All processes must check at the same time."""

  def __init__(self, own: StopRequest, strategy: tf.distribute.Strategy):
    self._own = own
    self._strategy = strategy

  @property
  def received(self) -> bool:
    """Whether any process received SIGTERM, from an all-reduce over all of them."""
    votes = self._strategy.experimental_distribute_values_from_function(
      lambda context: tf.constant(float(self._own.received))
    )
    return bool(self._strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None) > 0)
