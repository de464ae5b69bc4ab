"""Model Garden's trainer with a step that XLA compiles on any number of replicas."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task, base_trainer, config_definitions

from sasa_tf.training.step.int32_transport import Int32Transport
from sasa_tf.training.step.nonfinite_guard import NonfiniteGuard
from sasa_tf.training.step.replica_step import ReplicaStep


class Trainer(base_trainer.Trainer):
  """As Model Garden's, except that `runtime.enable_xla` does what it says.

  Model Garden compiles the step with the all-reduce inside, which fails with several replicas, and
  without GPUs compiles nothing. Here the all-reduce lies between two compiled programs, see
  `ReplicaStep`.
  """

  def __init__(
    self,
    config: config_definitions.ExperimentConfig,
    task: base_task.Task,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    train: bool = True,
    *,
    make_step: Callable[..., ReplicaStep] = ReplicaStep,
    on_nonfinite: str = "stop",
    **arguments: Any,
  ):
    """Prepares training and evaluation; to be called in the scope of the strategy.

    Args:
      config: of the experiment.
      task: configured by it.
      model: the task's.
      optimizer: the task's.
      train: whether there will be steps of training.
      make_step: builds the step.
      on_nonfinite: "stop" or "skip", see `NonfiniteGuard`.
      **arguments: Model Garden's.
    """
    self._integers = Int32Transport()
    super().__init__(config, task, model, optimizer, train, **arguments)
    self._guard = NonfiniteGuard(on_nonfinite, model, optimizer, self.global_step)
    self._loop_start = 0
    self._replica_step = None
    # All that a TPU runs is one program of XLA anyway.
    if train and not isinstance(self.strategy, tf.distribute.TPUStrategy):
      self._replica_step = make_step(
        task,
        model,
        optimizer,
        self.train_metrics,
        jit_compile=self._can_compile(),
        guard=self._guard,
        prepare_inputs=self._integers.restore,
      )

  def distribute_dataset(self, dataset_or_fn: Any, *args: Any, **kwargs: Any) -> Any:
    """As Model Garden's; the training's whole numbers are ready for programs of XLA."""
    of_training = args and args[0] is self.config.task.train_data
    on_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
    if of_training and self.config.runtime.enable_xla and not on_tpu:
      dataset_or_fn = self._integers.widened(dataset_or_fn)
    return super().distribute_dataset(dataset_or_fn, *args, **kwargs)

  def train_loop_begin(self) -> None:
    """Notes where the loop of steps begins."""
    super().train_loop_begin()
    self._loop_start = int(self.global_step.numpy())

  def train_loop_end(self) -> dict[str, Any]:
    """Returns the metrics of the loop of steps, unless its numbers went wrong."""
    logs = super().train_loop_end()
    self._guard.check(int(self.global_step.numpy()) - self._loop_start, logs)
    return logs

  def create_train_loop_fn(self) -> Callable[..., Any]:
    """Returns the loop of steps, which around compiled steps of one replica is Python's.

    The counter of TensorFlow's loop lies in the host's memory, so that a turn waits there for all
    that the last one has the device do. Python's calls the next step meanwhile, and the device
    finds it ready. Several replicas wait for their all-reduce anyway, and calls cost them more.
    """
    is_fully_compiled = self._replica_step is not None and self._replica_step.is_fully_compiled
    if not (is_fully_compiled and self.config.trainer.train_tf_function):
      return super().create_train_loop_fn()
    step = tf.function(self.train_step)

    def loop(iterator: Any, num_steps: tf.Tensor) -> None:
      for _ in range(int(num_steps)):
        step(iterator)

    return loop

  def train_step(self, iterator: Any) -> None:
    """Trains every replica on its share of the next batch."""
    inputs = self.next_train_inputs(iterator)
    self.strategy.run(self._train_replica, args=(inputs,), options=self._runtime_options)

  def _train_replica(self, inputs: Any) -> None:
    if self.strategy.num_replicas_in_sync > 1 and hasattr(self.task, "prepare_replica_inputs"):
      inputs = self.task.prepare_replica_inputs(inputs)
    if self._replica_step is not None:
      loss = self._replica_step(inputs)
    else:
      logs = self.task.train_step(inputs, self.model, self.optimizer, self.train_metrics)
      loss = logs[self.task.loss]
    self._guard.update_metric(self.train_loss, loss)
    self.global_step.assign_add(1)

  def _can_compile(self) -> bool:
    """Whether XLA is asked for, and possible; says so where it is not."""
    if not self.config.runtime.enable_xla:
      return False
    if self.strategy.num_replicas_in_sync > 1 and has_synchronized_batch_norm(self.model):
      print(
        "runtime.enable_xla=true has no effect: batch norm synchronised over "
        f"{self.strategy.num_replicas_in_sync} replicas reduces inside of the forward pass, which "
        "XLA does not compile. Set task.model.norm_activation.use_sync_bn=false for XLA, or "
        "runtime.enable_xla=false to be rid of this line.",
        file=sys.stderr,
      )
      return False
    return True


def has_synchronized_batch_norm(model: tf_keras.Model) -> bool:
  """Whether a layer of the model, or of a layer of it, meets the other replicas."""
  return any(getattr(layer, "synchronized", False) for layer in model.submodules)
