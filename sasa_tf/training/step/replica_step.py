"""The training step of one replica: compiled by XLA, with bucketed gradient all-reduce."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task

from sasa_tf.collectives.all_reduce import ProgramAllReduce, reduce_within_program
from sasa_tf.collectives.replica_group import ReplicaGroup
from sasa_tf.compat import tensorflow as tensorflow_compat
from sasa_tf.compat import tf_keras as tf_keras_compat
from sasa_tf.training.step.captured_step import capture_step
from sasa_tf.training.step.gradient_bucketing import GradientBuckets
from sasa_tf.training.step.nonfinite_guard import NonfiniteGuard


class ReplicaStep:
  """Forward and backward pass, all-reduce and update, called in replica context.

  Model Garden leaves the all-reduce to the optimizer. Where XLA compiles the step, TensorFlow's
  all-reduce is then part of the XLA program, which TensorFlow 2.20 ends with a segmentation fault
  on two GPUs. Here each of several replicas runs two programs, with the all-reduce between them:

  1. the forward and backward pass, which writes the gradients to flat buckets;
  2. the optimizer's update from the buckets, summed over the replicas.

  An optimizer that clips therefore clips the gradients of the global batch, as it does on a single
  replica. The step of a single replica is one program, and so is that of several replicas that have
  a `ReplicaGroup`: its all-reduces are XLA custom calls. The buckets with the gradients of the last
  layers, which the backward pass computes first, are then reduced while it goes on.

  Metrics that XLA is known to compile are updated inside the programs. Outside, top-k accuracy
  copies its k to the device in every step, and the host waits for the copy until the device is
  idle. It would also wait for a control dependency between two replicas, such as that of a counter
  that a merge call updates on all of them.
  """

  def __init__(
    self,
    task: base_task.Task,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    metrics: Sequence[tf_keras.metrics.Metric],
    *,
    jit_compile: bool,
    group: ReplicaGroup | None = None,
    max_bucket_bytes: int | None = None,
    guard: NonfiniteGuard | None = None,
    prepare_inputs: Callable[[Any], Any] = lambda inputs: inputs,
    finish: Callable[[tf.Tensor], Any] = lambda loss: None,
  ):
    """Creates the step. Nothing is traced yet.

    Args:
      task: a task whose `train_step` divides the loss by the number of replicas, as those of Model
        Garden do.
      model: model of the task.
      optimizer: optimizer of the task. From now on it receives reduced gradients, and does not
        reduce them itself.
      metrics: training metrics of `task.build_metrics`.
      jit_compile: whether XLA compiles the step.
      group: the replicas of the strategy, to reduce within the compiled step. None to reduce
        between two programs.
      max_bucket_bytes: maximum size of a gradient bucket. None for one bucket per dtype.
      guard: checks that loss and gradients are finite. None for no check.
      prepare_inputs: function of the inputs, called inside the program before the task.
      finish: called after the update with the loss of the replica's share, inside the program if
        there is a single one.
    """
    self._task = task
    self._model = model
    self._optimizer = optimizer
    self._metrics = list(metrics)
    self._guard = guard
    self._prepare_inputs = prepare_inputs
    self._finish = finish
    self._jit_compile = jit_compile
    self._strategy = tf.distribute.get_strategy()
    self._single_replica = self._strategy.num_replicas_in_sync == 1
    self._group = group
    self._single_program = self._single_replica or group is not None
    self._max_bucket_bytes = max_bucket_bytes
    self._buckets: GradientBuckets | None = None
    self._variables: list[tf.Variable] = []
    tf_keras_compat.disable_gradient_aggregation(optimizer)

    def compiled(function):
      if not jit_compile:
        return function

      def traced(*arguments):
        # The learning rate at the end of the warm-up is such a constant.
        with tensorflow_compat.inlined_constants():
          return function(*arguments)

      return tf.function(traced, jit_compile=True)

    if self._single_program:
      self._step = compiled(self._train_in_one_program)
    else:
      self._step = self._train_in_two_programs
      self._compute_buckets = compiled(self._compute_buckets)
      self._update_from_buckets = compiled(self._update_from_buckets)

  @property
  def is_fully_compiled(self) -> bool:
    """Whether XLA compiles the whole step as a single program."""
    return self._jit_compile and self._single_program

  def __call__(self, inputs: Any) -> tf.Tensor:
    """Trains on one replica's share of a batch and returns the loss of that share."""
    loss, metric_arguments = self._step(inputs)
    for metric, updates in zip(self._metrics, metric_arguments, strict=True):
      self._update_metric(metric, updates)
    if not self._single_program:
      self._finish(loss)
    return loss

  def _train_in_one_program(self, inputs: Any) -> tuple[tf.Tensor, list[Any]]:
    within_program = reduce_within_program(self._group) if self._group else contextlib.nullcontext()
    with within_program as program:
      saved_averages = self._guard.save_averages() if self._guard else []
      gradients, loss, metric_arguments = self._compute_gradients(inputs)
      if program is not None:
        gradients = self._reduce_within(program, gradients)
      # After the all-reduce, each replica can update its own copy of the variables.
      with tensorflow_compat.updates_without_merge_call(self._strategy):
        self._update(gradients, saved_averages)
        self._finish(loss)
      return loss, metric_arguments

  def _train_in_two_programs(self, inputs: Any) -> tuple[tf.Tensor, list[Any]]:
    saved_averages = self._guard.save_averages() if self._guard else []
    buckets, loss, metric_arguments = self._compute_buckets(inputs)
    buckets = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, buckets)
    with tensorflow_compat.updates_without_merge_call(self._strategy):
      self._update_from_buckets(buckets, saved_averages)
    return loss, metric_arguments

  def _compute_buckets(self, inputs: Any) -> tuple[list[tf.Tensor], tf.Tensor, list[Any]]:
    gradients, loss, metric_arguments = self._compute_gradients(inputs)
    self._buckets = GradientBuckets(gradients, self._max_bucket_bytes)
    return self._buckets.flatten(gradients), loss, metric_arguments

  def _update_from_buckets(self, buckets: list[tf.Tensor], saved_averages: list[tf.Tensor]) -> None:
    self._update(self._buckets.unflatten(buckets), saved_averages)

  def _compute_gradients(self, inputs: Any) -> tuple[list[tf.Tensor], tf.Tensor, list[Any]]:
    """Returns gradients and loss to reduce, the loss, and the metric updates to run outside."""
    inputs = self._prepare_inputs(inputs)
    step = capture_step(self._task, inputs, self._model, self._optimizer, self._metrics)
    self._variables = step.variables  # the same in every replica
    outside_updates = []
    for metric, updates in zip(self._metrics, step.metric_arguments, strict=True):
      inside = self._jit_compile and _is_compilable(metric)
      if inside:
        self._update_metric(metric, updates)
      outside_updates.append([] if inside else updates)
    # The loss is reduced too, so that all replicas agree whether it is finite.
    return [*step.gradients, tf.cast(step.loss, tf.float32)], step.loss, outside_updates

  def _reduce_within(
    self, program: ProgramAllReduce, gradients: list[tf.Tensor]
  ) -> list[tf.Tensor]:
    buckets = GradientBuckets(gradients, self._max_bucket_bytes, last_first=True)
    # NCCL takes twice as long for many arrays as for a single one of the same size.
    return buckets.unflatten(program.reduce_asynchronously(buckets.flatten(gradients)))

  def _update_metric(
    self, metric: tf_keras.metrics.Metric, updates: Sequence[tuple[Any, ...]]
  ) -> None:
    for arguments in updates:
      if self._guard is None:
        metric.update_state(*arguments)
      else:
        self._guard.update_metric(metric, *arguments)

  def _update(self, reduced: list[tf.Tensor], saved_averages: list[tf.Tensor]) -> None:
    *gradients, loss = reduced

    def update():
      pairs = list(zip(gradients, self._variables, strict=True))
      if isinstance(self._optimizer, tf_keras.optimizers.legacy.Optimizer):
        self._optimizer.apply_gradients(pairs)
      else:
        self._optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)

    if self._guard is None:
      update()
    else:
      self._guard.apply_update(loss, gradients, self._variables, saved_averages, update)


def _is_compilable(metric: tf_keras.metrics.Metric) -> bool:
  """Whether XLA is known to compile the metric: Keras's subclasses of Mean, such as accuracies."""
  is_keras_metric = type(metric).__module__.startswith("tf_keras.")
  return is_keras_metric and isinstance(metric, tf_keras.metrics.Mean)
