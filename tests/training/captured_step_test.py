"""A training step that changes nothing but what it returns."""

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_task

from sasa_tf.training.step.captured_step import capture_step


class Task(base_task.Task):
  """Model Garden's own step, with a loss and a variable that the loss does not depend on."""

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


def record(optimizer):
  model, metric = Model(), CountingMetric(name="metric")
  step = capture_step(Task(params=None), INPUTS, model, optimizer, [metric])
  return step, model, metric


def test_gradients_of_what_has_one():
  step, model, _ = record(tf_keras.optimizers.legacy.SGD(0.1))
  assert [variable.name for variable in step.variables] == ["factor:0"]
  # d/df mean((l - f x)^2) = -2 mean(x (l - f x)) with l = 3 x, f = 1
  np.testing.assert_allclose([float(step.gradients[0])], [-10.0])
  np.testing.assert_allclose(float(step.loss), 10.0)
  assert float(model.factor) == 1 and float(model.seen) == 1


def test_metrics_wait():
  step, _, metric = record(tf_keras.optimizers.legacy.SGD(0.1))
  assert float(metric.count) == 0
  ((arguments,),) = step.metric_arguments
  metric.update_state(*arguments)
  np.testing.assert_allclose(float(metric.result()), 6.0)


def test_the_loss_is_scaled_and_the_gradient_unscaled():
  optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
    tf_keras.optimizers.legacy.SGD(0.1), dynamic=False, initial_scale=1e38
  )
  step, *_ = record(optimizer)
  assert not np.isfinite(float(step.gradients[0]))  # 1e38 times 10 overflows
  optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
    tf_keras.optimizers.legacy.SGD(0.1), dynamic=False, initial_scale=1024
  )
  step, *_ = record(optimizer)
  np.testing.assert_allclose(float(step.gradients[0]), -10.0)
