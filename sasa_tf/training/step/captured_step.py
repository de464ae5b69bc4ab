"""Runs a task's training step up to its gradients, and captures what it would apply.

A Model Garden task computes, reduces and applies gradients and updates metrics in one function.
Here the function receives stand-ins for the optimizer and the metrics, which record its calls. The
caller can then compile each part with XLA or not, and run it before or after the all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from official.core import base_task


class CapturedStep(NamedTuple):
  """The results of a training step before they are applied.

  Attributes:
    loss: loss of this replica, a scalar.
    gradients: dense gradients of this replica's share of the loss, one for each of `variables`.
    variables: the trainable variables that have a gradient.
    metric_arguments: for each metric, the positional arguments of each of its updates.
  """

  loss: tf.Tensor
  gradients: list[tf.Tensor]
  variables: list[tf.Variable]
  metric_arguments: list[list[tuple[Any, ...]]]


class _CapturingOptimizer:
  """Forwards to an optimizer, but captures the gradients instead of applying them."""

  def __init__(self, optimizer: tf_keras.optimizers.Optimizer):
    self._optimizer = optimizer
    self.gradients_and_variables: list[tuple[tf.Tensor, tf.Variable]] = []

  @property
  def __class__(self) -> type:  # tasks check for a LossScaleOptimizer
    return type(self._optimizer)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._optimizer, name)

  def apply_gradients(self, grads_and_vars: Sequence[tuple[Any, tf.Variable]]) -> None:
    self.gradients_and_variables = [
      (tf.convert_to_tensor(gradient), variable)
      for gradient, variable in grads_and_vars
      if gradient is not None
    ]


class _CapturingMetric:
  """Captures the arguments of a metric's updates."""

  def __init__(self, name: str):
    self.name = name
    self.arguments: list[tuple[Any, ...]] = []

  def update_state(self, *arguments: Any) -> None:
    self.arguments.append(arguments)

  def result(self) -> None:
    return None  # some tasks add it to the logs of the step, which are not used


def capture_step(
  task: base_task.Task,
  inputs: Any,
  model: tf_keras.Model,
  optimizer: tf_keras.optimizers.Optimizer,
  metrics: Sequence[tf_keras.metrics.Metric],
) -> CapturedStep:
  """Runs `task.train_step` without updating the optimizer, the weights or the metrics.

  Args:
    task: a Model Garden task.
    inputs: inputs of one replica, as the task's dataset yields them.
    model: model of the task. The moving averages of batch normalization are updated.
    optimizer: optimizer that the gradients are for. A LossScaleOptimizer scales the loss.
    metrics: metrics of `task.build_metrics`.
  """
  capturing_optimizer = _CapturingOptimizer(optimizer)
  capturing_metrics = [_CapturingMetric(metric.name) for metric in metrics]
  logs = task.train_step(
    inputs, model=model, optimizer=capturing_optimizer, metrics=capturing_metrics
  )
  pairs = capturing_optimizer.gradients_and_variables
  return CapturedStep(
    loss=logs[task.loss],
    gradients=[gradient for gradient, _ in pairs],
    variables=[variable for _, variable in pairs],
    metric_arguments=[metric.arguments for metric in capturing_metrics],
  )
