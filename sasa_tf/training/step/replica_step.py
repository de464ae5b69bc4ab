"""One replica's training step: one large all-reduce instead of many small ones, XLA around it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task

from sasa_tf.training.step.captured_step import capture_step
from sasa_tf.training.step.gradient_bucketing import GradientBuckets
from sasa_tf.training.step.nonfinite_guard import NonfiniteGuard


class ReplicaStep:
  """Forward and backward pass, all-reduce, update; to be called in a replica.

  Model Garden leaves the all-reduce to the optimizer and so, where XLA compiles the step, puts it
  inside of the program. Here a replica among several runs two programs, with the all-reduce between
  them:

  1. forward and backward pass, with the gradients packed into flat buffers;
  2. the optimizer's update from the sum of the buffers over the replicas.

  So an optimizer that clips does it with the gradients of the global batch, as it does on a single
  replica, whose step is one program. (With the all-reduce inside of one program of XLA, TensorFlow
  2.20 ended with a segmentation fault on two GPUs.)

  Metrics that XLA is known to compile are updated in the programs: outside, top-k accuracy copies
  its k to the device in every step, for which the host waits until the device is idle.
  """

  def __init__(
    self,
    task: base_task.Task,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    metrics: Sequence[tf_keras.metrics.Metric],
    *,
    jit_compile: bool,
    max_bucket_bytes: int | None = None,
    guard: NonfiniteGuard | None = None,
    prepare_inputs: Callable[[Any], Any] = lambda inputs: inputs,
  ):
    """Prepares the step; nothing is traced yet.

    Args:
      task: whose `train_step` divides the loss by the number of replicas, as Model Garden's do.
      model: the task's.
      optimizer: from now on it is given reduced gradients and reduces none itself.
      metrics: of `task.build_metrics`, for the training.
      jit_compile: whether XLA compiles.
      max_bucket_bytes: of a buffer; None for one buffer of each dtype.
      guard: watches loss and gradients; None for nobody.
      prepare_inputs: what the task gets of the inputs, made in the program.
    """
    self._task = task
    self._model = model
    self._optimizer = optimizer
    self._metrics = list(metrics)
    self._guard = guard
    self._prepare_inputs = prepare_inputs
    self._jit_compile = jit_compile
    self._strategy = tf.distribute.get_strategy()
    self._alone = self._strategy.num_replicas_in_sync == 1
    # A buffer for each gradient costs a single replica nothing.
    self._max_buffer_bytes = 0 if self._alone else max_bucket_bytes
    self._packing: GradientBuckets | None = None
    self._variables: list[tf.Variable] = []
    _leave_reduction_to_us(optimizer)

    def compiled(function):
      return tf.function(function, jit_compile=True) if jit_compile else function

    # Each program of the step, by itself or as one.
    if self._alone:
      self._step = compiled(self._step)
    else:
      self._gradients = compiled(self._gradients)
      self._update = compiled(self._update)

  @property
  def is_fully_compiled(self) -> bool:
    """Whether XLA compiles the whole step, as a single program."""
    return self._jit_compile and self._alone

  def __call__(self, inputs: Any) -> tf.Tensor:
    """Trains on one replica's share of a batch and returns the loss of that share."""
    loss, metric_arguments = self._step(inputs)
    for metric, updates in zip(self._metrics, metric_arguments, strict=True):
      self._update_metric(metric, updates)
    return loss

  def _step(self, inputs: Any) -> tuple[tf.Tensor, list[Any]]:
    kept = self._guard.keep() if self._guard else []
    buffers, loss, metric_arguments = self._gradients(inputs)
    if not self._alone:
      buffers = self._all_reduce(buffers)
    with _without_merge_calls(self._strategy):
      self._update(buffers, kept)
    return loss, metric_arguments

  def _gradients(self, inputs: Any) -> tuple[list[tf.Tensor], tf.Tensor, list[Any]]:
    inputs = self._prepare_inputs(inputs)
    step = capture_step(self._task, inputs, self._model, self._optimizer, self._metrics)
    # The same for every replica.
    self._variables = step.variables
    # The loss travels along, so that all replicas know of every other's.
    travelling = [*step.gradients, tf.cast(step.loss, tf.float32)]
    self._packing = GradientBuckets(travelling, self._max_buffer_bytes)
    left = []  # for the metrics that are updated outside
    for metric, updates in zip(self._metrics, step.metric_arguments, strict=True):
      inside = self._jit_compile and _is_compiled(metric)
      if inside:
        self._update_metric(metric, updates)
      left.append([] if inside else updates)
    return self._packing.flatten(travelling), step.loss, left

  def _update_metric(
    self, metric: tf_keras.metrics.Metric, updates: Sequence[tuple[Any, ...]]
  ) -> None:
    for arguments in updates:
      if self._guard is None:
        metric.update_state(*arguments)
      else:
        self._guard.update_metric(metric, *arguments)

  def _all_reduce(self, buffers: list[tf.Tensor]) -> list[tf.Tensor]:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, buffers)

  def _update(self, buffers: list[tf.Tensor], kept: list[tf.Tensor]) -> None:
    *gradients, loss = self._packing.unflatten(buffers)

    def update():
      pairs = list(zip(gradients, self._variables, strict=True))
      if isinstance(self._optimizer, tf_keras.optimizers.legacy.Optimizer):
        self._optimizer.apply_gradients(pairs)
      else:
        self._optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)

    if self._guard is None:
      update()
    else:
      self._guard.apply(loss, gradients, self._variables, kept, update)


def _is_compiled(metric: tf_keras.metrics.Metric) -> bool:
  """Whether XLA is known to compile its updates: Keras's own means, accuracies among them."""
  keras_own = type(metric).__module__.startswith("tf_keras.")
  return keras_own and isinstance(metric, tf_keras.metrics.Mean)


def _leave_reduction_to_us(optimizer: tf_keras.optimizers.Optimizer) -> None:
  """Takes the all-reduce away from an optimizer that keeps it in an attribute, wrapped or not.

  The argument `experimental_aggregate_gradients=False` would do so too, but the optimizer that
  averages weights does not take it, and Model Garden's AdamW then does not clip.
  """
  while hasattr(optimizer, "_optimizer"):  # scales the loss, or averages the weights
    optimizer = optimizer._optimizer
  if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
    optimizer.gradient_aggregator = lambda gradients_and_variables: gradients_and_variables


@contextlib.contextmanager
def _without_merge_calls(strategy: tf.distribute.Strategy) -> Iterator[None]:
  """Lets a replica update its own copies of the variables without meeting the others.

  Optimizers meet the others (`merge_call`) to update all copies at once, which cannot be compiled.
  TensorFlow leaves that out by itself in programs of GPUs. Once gradients are reduced, it is
  needless everywhere.
  """
  extended = strategy.extended
  extended._use_merge_call = lambda: False
  try:
    yield
  finally:
    del extended._use_merge_call
