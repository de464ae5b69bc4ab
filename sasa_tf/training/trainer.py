"""Model Garden's trainer with a step that XLA compiles on any number of replicas."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task, base_trainer, config_definitions

from sasa_tf.modeling.builders.build_errors import section_errors
from sasa_tf.training.step.all_reduce_mode import Processes, replica_group
from sasa_tf.training.step.int32_transport import Int32Transport
from sasa_tf.training.step.nonfinite_guard import NonfiniteGuard
from sasa_tf.training.step.process_watch import aborted_on_loss
from sasa_tf.training.step.replica_failure import check_group, translate_group_failure
from sasa_tf.training.step.replica_step import ReplicaStep


class Trainer(base_trainer.Trainer):
  """Model Garden's trainer, in which `runtime.enable_xla` works on any number of replicas.

  Model Garden compiles the step with TensorFlow's all-reduce inside, which fails with several
  replicas, and compiles nothing without GPUs. Here the all-reduce is between two compiled programs,
  or a custom call within a single one, see `ReplicaStep`.
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
    all_reduce: str = "auto",
    processes: Processes | None = None,
    on_nonfinite: str = "stop",
    **arguments: Any,
  ):
    """Prepares training and evaluation. Must be called in the strategy's scope.

    Args:
      config: configuration of the experiment.
      task: task that it configures.
      model: model of the task.
      optimizer: optimizer of the task.
      train: whether to prepare training.
      make_step: creates the replica step.
      all_reduce: where several replicas reduce, one of `all_reduce_mode.MODES`.
      processes: the processes of the training, None if there is one.
      on_nonfinite: "stop" or "skip", see `NonfiniteGuard`.
      **arguments: further arguments of Model Garden's trainer.
    """
    self._int32_transport = Int32Transport()
    super().__init__(config, task, model, optimizer, train, **arguments)
    self._guard = NonfiniteGuard(on_nonfinite, model, optimizer, self.global_step)
    self._run_options = base_trainer.get_runtime_options(config)
    self._loop_start = 0
    self._replica_step = None
    self._group = None
    self._processes = processes
    # A TPU runs only XLA programs, so that Model Garden's own step is used there.
    if train and not isinstance(self.strategy, tf.distribute.TPUStrategy):
      self._group = replica_group(self.strategy, all_reduce, config.runtime.enable_xla, processes)
      self._replica_step = make_step(
        task,
        model,
        optimizer,
        self.train_metrics,
        jit_compile=self._can_compile(),
        group=self._group,
        guard=self._guard,
        prepare_inputs=self._int32_transport.restore,
        finish=self._finish_step,
      )

  def distribute_dataset(self, dataset_or_fn: Any, *args: Any, **kwargs: Any) -> Any:
    """Distributes a dataset. With XLA, the training data has int64 tensors instead of int32."""
    is_train_data = args and args[0] is self.config.task.train_data
    on_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
    if is_train_data and self.config.runtime.enable_xla and not on_tpu:
      dataset_or_fn = self._int32_transport.wrap_dataset_fn(dataset_or_fn)
    data = self.config.task.train_data if is_train_data else self.config.task.validation_data
    name = "train_data" if is_train_data else "validation_data"
    with section_errors(f"task.{name}", data.as_dict(), "the dataset"):
      return super().distribute_dataset(dataset_or_fn, *args, **kwargs)

  def train(self, num_steps: tf.Tensor) -> dict[str, Any]:
    """Runs a loop of steps, and returns its metrics. Does not wait for a process that is lost.

    Raises:
      WorkerLostError: see `train_loop_end`.
    """
    watched = contextlib.nullcontext()
    if self._group is not None and self._processes is not None:
      watched = aborted_on_loss(self._group, self._processes)
    with watched:
      return super().train(num_steps)

  def train_loop_begin(self) -> None:
    """Records the step at which the loop begins."""
    super().train_loop_begin()
    self._loop_start = int(self.global_step.numpy())

  def train_loop_end(self) -> dict[str, Any]:
    """Returns the metrics of the loop of steps.

    Raises:
      UserError: loss, gradients or metrics are not finite, see `NonfiniteGuard.check`.
      WorkerLostError: the replicas cannot reduce any more.
    """
    logs = super().train_loop_end()
    if self._group is not None:
      check_group(self._group)
    self._guard.check(int(self.global_step.numpy()) - self._loop_start, logs)
    return logs

  def create_train_loop_fn(self) -> Callable[..., Any]:
    """Returns the loop of steps: a Python loop if each step is a single XLA program.

    The counter of a `tf.while_loop` is in host memory, so that each iteration waits for the device
    to finish the previous one. A Python loop enqueues the next step meanwhile. Several replicas
    that reduce between programs wait for their all-reduce anyway, and pay more for each call.
    """
    is_fully_compiled = self._replica_step is not None and self._replica_step.is_fully_compiled
    if not (is_fully_compiled and self.config.trainer.train_tf_function):
      return super().create_train_loop_fn()
    step = tf.function(self.train_step)

    def loop(iterator: Any, num_steps: tf.Tensor) -> None:
      with translate_group_failure(self._group) if self._group else contextlib.nullcontext():
        for _ in range(int(num_steps)):
          step(iterator)

    return loop

  def train_step(self, iterator: Any) -> None:
    """Trains every replica on its share of the next batch."""
    inputs = self.next_train_inputs(iterator)
    self.strategy.run(self._train_replica, args=(inputs,), options=self._run_options)

  def _train_replica(self, inputs: Any) -> None:
    if self.strategy.num_replicas_in_sync > 1 and hasattr(self.task, "prepare_replica_inputs"):
      inputs = self.task.prepare_replica_inputs(inputs)
    if self._replica_step is not None:
      self._replica_step(inputs)
    else:
      logs = self.task.train_step(inputs, self.model, self.optimizer, self.train_metrics)
      self._finish_step(logs[self.task.loss])

  def _finish_step(self, loss: tf.Tensor) -> None:
    self._guard.update_metric(self.train_loss, loss)
    self.global_step.assign_add(1)

  def _can_compile(self) -> bool:
    """Returns whether to compile with XLA, and prints a reason if it is enabled but impossible."""
    if not self.config.runtime.enable_xla:
      return False
    reduces_between = self.strategy.num_replicas_in_sync > 1 and self._group is None
    if reduces_between and has_synchronized_batch_norm(self.model):
      print(
        "runtime.enable_xla=true has no effect: batch norm synchronized over "
        f"{self.strategy.num_replicas_in_sync} replicas all-reduces inside the forward pass, which "
        "XLA does not compile with the all-reduce between programs. Set "
        "task.model.norm_activation.use_sync_bn=false or --all_reduce=in_program to use XLA, or "
        "runtime.enable_xla=false to silence this message.",
        file=sys.stderr,
      )
      return False
    return True


def has_synchronized_batch_norm(model: tf_keras.Model) -> bool:
  """Whether a layer of the model, nested ones included, communicates with the other replicas."""
  return any(getattr(layer, "synchronized", False) for layer in model.submodules)
