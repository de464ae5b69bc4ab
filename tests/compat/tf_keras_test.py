"""Every private API of tf_keras still does what `sasa_tf.compat.tf_keras` says."""

import pytest
import tensorflow as tf
import tf_keras
from official.modeling import optimization

from sasa_tf.compat import tf_keras as compat


class AggregationError(Exception):
  """The optimizer aggregates gradients."""


def fail(gradients_and_variables):
  raise AggregationError


@pytest.mark.parametrize(
  "wrap",
  [
    lambda optimizer: optimizer,
    tf_keras.mixed_precision.LossScaleOptimizer,
    optimization.ExponentialMovingAverage,
  ],
  ids=["optimizer", "loss scale", "moving average"],
)
def test_disable_gradient_aggregation(wrap):
  inner = tf_keras.optimizers.legacy.SGD(0.5, gradient_aggregator=fail)
  optimizer = wrap(inner)
  model = tf_keras.Sequential([tf_keras.layers.Dense(1, use_bias=False, input_shape=[1])])
  (variable,) = model.trainable_variables
  variable.assign([[1.0]])
  if isinstance(optimizer, optimization.ExponentialMovingAverage):
    optimizer.shadow_copy(model)
  with pytest.raises(AggregationError):
    optimizer.apply_gradients([(tf.constant([[1.0]]), variable)])
  compat.disable_gradient_aggregation(optimizer)
  optimizer.apply_gradients([(tf.constant([[1.0]]), variable)])
  assert float(variable) == 0.5


def test_other_optimizers_are_unchanged():
  optimizer = tf_keras.optimizers.Adam()
  compat.disable_gradient_aggregation(optimizer)
  assert not hasattr(optimizer, "gradient_aggregator")
