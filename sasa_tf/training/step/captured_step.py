"""A task's training step up to its gradients, with what it does with them recorded.

Tasks of Model Garden compute, reduce and apply gradients and update metrics in one function. Here
stand-ins for optimizer and metrics go through that function, so that each part can run where it is
best: compiled by XLA or not, before or after the replicas have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from official.core import base_task


class CapturedStep(NamedTuple):
  """What a training step computed and has not applied.

  Attributes:
    loss: of this replica, a scalar.
    gradients: of this replica's share of the loss, dense, one for each of `variables`.
    variables: those trainable variables that have a gradient.
    metric_arguments: for each metric the positional arguments of each of its updates.
  """

  loss: tf.Tensor
  gradients: list[tf.Tensor]
  variables: list[tf.Variable]
  metric_arguments: list[list[tuple[Any, ...]]]


class _RecordingOptimizer:
  """Passes for the optimizer that it stands for, but keeps the gradients."""

  def __init__(self, optimizer: tf_keras.optimizers.Optimizer):
    self._optimizer = optimizer
    self.gradients_and_variables: list[tuple[tf.Tensor, tf.Variable]] = []

  @property
  def __class__(self) -> type:  # tasks ask whether it is one that scales the loss
    return type(self._optimizer)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._optimizer, name)

  def apply_gradients(self, grads_and_vars: Sequence[tuple[Any, tf.Variable]]) -> None:
    self.gradients_and_variables = [
      (tf.convert_to_tensor(gradient), variable)
      for gradient, variable in grads_and_vars
      if gradient is not None
    ]


class _RecordingMetric:
  """Keeps what a metric would be updated with."""

  def __init__(self, name: str):
    self.name = name
    self.arguments: list[tuple[Any, ...]] = []

  def update_state(self, *arguments: Any) -> None:
    self.arguments.append(arguments)

  def result(self) -> None:
    return None  # some tasks log it at once; nobody reads these logs


def capture_step(
  task: base_task.Task,
  inputs: Any,
  model: tf_keras.Model,
  optimizer: tf_keras.optimizers.Optimizer,
  metrics: Sequence[tf_keras.metrics.Metric],
) -> CapturedStep:
  """Runs `task.train_step` without its effects on optimizer, weights and metrics.

  Args:
    task: of Model Garden, or of ours.
    inputs: of one replica, as the task's data set gives them.
    model: the task's. Moving averages of batch norm are updated.
    optimizer: that the gradients are for; may scale the loss.
    metrics: of `task.build_metrics`.
  """
  recording = _RecordingOptimizer(optimizer)
  recording_metrics = [_RecordingMetric(metric.name) for metric in metrics]
  logs = task.train_step(inputs, model=model, optimizer=recording, metrics=recording_metrics)
  pairs = recording.gradients_and_variables
  return CapturedStep(
    loss=logs[task.loss],
    gradients=[gradient for gradient, _ in pairs],
    variables=[variable for _, variable in pairs],
    metric_arguments=[metric.arguments for metric in recording_metrics],
  )
