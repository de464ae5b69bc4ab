"""Capturing a training step without applying it."""

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_task

from sasa_tf.training.step.captured_step import capture_step


class Task(base_task.Task):
  """A task with Model Garden's `train_step`."""

  def build_inputs(self, params, input_context=None):
    raise NotImplementedError

  def build_losses(self, labels, model_outputs, aux_losses=None):
    return tf.reduce_mean(tf.square(labels - model_outputs))


class Model(tf_keras.Model):
  def __init__(self):
    super().__init__()
    self.factor = self.add_weight("factor", [], initializer="ones")
    self.idle = self.add_weight("idle", [], initializer="ones")
    self.seen = self.add_weight("seen", [], initializer="zeros", trainable=False)

  def call(self, inputs, training=False):
    if training:
      self.seen.assign_add(1.0)
    return self.factor * inputs


class CountingMetric(tf_keras.metrics.Mean):
  def update_state(self, labels, outputs):
    return super().update_state(labels + outputs)


INPUTS = tf.constant([1.0, 2.0]), tf.constant([3.0, 6.0])


def capture(optimizer):
  model, metric = Model(), CountingMetric(name="metric")
  step = capture_step(Task(params=None), INPUTS, model, optimizer, [metric])
  return step, model, metric


def test_captures_gradients_without_applying_them():
  step, model, _ = capture(tf_keras.optimizers.legacy.SGD(0.1))
  assert [variable.name for variable in step.variables] == ["factor:0"]
  # d/df mean((l - f x)^2) = -2 mean(x (l - f x)) with l = 3 x, f = 1
  np.testing.assert_allclose([float(step.gradients[0])], [-10.0])
  np.testing.assert_allclose(float(step.loss), 10.0)
  assert float(model.factor) == 1 and float(model.seen) == 1


def test_captures_metric_updates():
  step, _, metric = capture(tf_keras.optimizers.legacy.SGD(0.1))
  assert float(metric.count) == 0
  ((arguments,),) = step.metric_arguments
  metric.update_state(*arguments)
  np.testing.assert_allclose(float(metric.result()), 6.0)


def test_loss_scale_is_applied_and_gradients_are_unscaled():
  optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
    tf_keras.optimizers.legacy.SGD(0.1), dynamic=False, initial_scale=1e38
  )
  step, *_ = capture(optimizer)
  assert not np.isfinite(float(step.gradients[0]))  # 1e38 times 10 overflows
  optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
    tf_keras.optimizers.legacy.SGD(0.1), dynamic=False, initial_scale=1024
  )
  step, *_ = capture(optimizer)
  np.testing.assert_allclose(float(step.gradients[0]), -10.0)
