"""Private APIs of tf_keras, and of Model Garden's optimizers for it."""

from __future__ import annotations

import tf_keras


def disable_gradient_aggregation(optimizer: tf_keras.optimizers.Optimizer) -> None:
  """Makes a legacy optimizer apply gradients without an all-reduce.

  The argument `experimental_aggregate_gradients=False` of `apply_gradients` is not enough: the
  optimizer that averages weights does not take it, and Model Garden's AdamW then does not clip.
  Other optimizers are unchanged: their `apply_gradients` takes `skip_gradients_aggregation`.

  Args:
    optimizer: optimizer, or a wrapper of one that scales the loss or averages the weights.
  """
  while hasattr(optimizer, "_optimizer"):
    optimizer = optimizer._optimizer
  if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
    optimizer.gradient_aggregator = lambda gradients_and_variables: gradients_and_variables
