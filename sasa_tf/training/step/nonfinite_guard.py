"""Losses and gradients that are no finite numbers: found in the step, told after the loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from sasa_tf.errors import UserError

POLICIES = ("stop", "skip")


class NonfiniteGuard:
  """Watches the steps of a training, in the program that applies the gradients.

  Every step reduces loss and gradients to one number each, which costs a pass over the gradients;
  nobody waits for it. After a loop of steps one variable is read.

  With the policy "skip", a step whose loss or gradients are not finite on some replica changes
  nothing on any: no weight, no average of batch norm, none of the optimizer's variables.
  """

  def __init__(
    self,
    policy: str,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    global_step: tf.Variable,
  ):
    """Makes its variables; to be called in the scope of the strategy.

    Args:
      policy: "stop" or "skip".
      model: whose variables without gradient, such as averages, a skipped step must leave alone.
      optimizer: one that scales the loss meets infinite gradients as a matter of course, and skips
        them itself; then only the loss is watched.
      global_step: number of steps done.
    """
    if policy not in POLICIES:
      raise UserError(f"--on_nonfinite: expected stop or skip; received {policy!r}.")
    self._skips = policy == "skip"
    self._averages = list(model.non_trainable_variables) if self._skips else []
    self._scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    self._global_step = global_step
    self._names: list[str] = []
    self._first_step, self._first_tensor, self._count = (_counter(name) for name in _COUNTERS)

  def keep(self) -> list[tf.Tensor]:
    """Returns what the forward pass is about to change, for `apply`."""
    return [tf.identity(variable) for variable in self._averages]

  def apply(
    self,
    loss: tf.Tensor,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    kept: Sequence[tf.Tensor],
    update: Callable[[], Any],
  ) -> None:
    """Looks at a step and updates the weights, or not; to be called in a replica.

    Args:
      loss: a scalar, reduced over the replicas, so that all decide alike.
      gradients: reduced too.
      variables: that the gradients are for.
      kept: from `keep`, before the forward pass.
      update: applies the gradients; without meeting the other replicas.
    """
    watched = [loss] if self._scaled else [loss, *gradients]
    self._names = ["loss", *(f"gradient of {variable.name}" for variable in variables)]
    are_finite = _are_finite(watched)
    finite = tf.reduce_all(are_finite)
    news = tf.logical_and(~finite, self._first_step < 0)
    step = tf.cast(self._global_step, tf.int64) + 1
    numbers = tf.range(len(watched), dtype=tf.int64)
    first = tf.reduce_min(tf.where(are_finite, tf.int64.max, numbers))
    self._first_step.assign(tf.where(news, step, self._first_step))
    self._first_tensor.assign(tf.where(news, first, self._first_tensor))
    self._count.assign_add(tf.cast(~finite, tf.int64))
    if not self._skips:
      update()
      return
    tf.cond(finite, lambda: _nothing_after(update), lambda: False)
    for variable, before in zip(self._averages, kept, strict=True):
      variable.assign(tf.where(finite, variable, before))

  def update_metric(self, metric: tf_keras.metrics.Metric, *arguments: Any) -> None:
    """Updates a metric, with "skip" unless a value that it is given is not finite."""
    values = [
      value
      for value in tf.nest.flatten(arguments)
      if tf.is_tensor(value) and value.dtype.is_floating
    ]
    if not self._skips or not values:
      metric.update_state(*arguments)
      return
    finite = tf.reduce_all(_are_finite(values))
    tf.cond(finite, lambda: _nothing_after(lambda: metric.update_state(*arguments)), lambda: False)

  def check(self, steps: int, logs: Mapping[str, Any]) -> None:
    """Stops, or tells of the steps skipped; to be called after each loop of steps.

    Args:
      steps: of the loop.
      logs: metrics of the loop.

    Raises:
      UserError: the loop met what is not finite; with "skip", in all of its steps.
    """
    first, count = int(self._first_step.numpy()), int(self._count.numpy())
    if first >= 0:
      told = f"step {first}: the {self._names[int(self._first_tensor.numpy())]} is not finite"
      self._first_step.assign(-1)
      self._count.assign(0)
      if self._skips and count < steps:
        print(f"warning: {told}; skipped {count} of {steps} steps", file=sys.stderr, flush=True)
        return
      raise UserError(f"{told}{_in_all_steps(count) if self._skips else ''}. {_ADVICE}")
    for name, value in logs.items():
      value = tf.convert_to_tensor(value)
      if value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(value))):
        last = int(self._global_step.numpy())
        raise UserError(
          f"steps {last - steps + 1} to {last}: the metric {name} is not finite, while loss and "
          f"gradients are. {_ADVICE}"
        )


_COUNTERS = ("nonfinite_step", "nonfinite_tensor", "nonfinite_count")
_ADVICE = (
  "The last checkpoint is of before. Lower the learning rate, lengthen its warm-up, or clip the "
  "gradients (trainer.optimizer_config); --on_nonfinite=skip leaves such steps out."
)


def _in_all_steps(count: int) -> str:
  return f", and so it went in all {count} steps of the loop: skipping does not help"


def _counter(name: str) -> tf.Variable:
  """A whole number of which each replica has its own and all have the same."""
  return tf.Variable(
    -1 if name == "nonfinite_step" else 0,
    dtype=tf.int64,
    trainable=False,
    name=name,
    synchronization=tf.VariableSynchronization.ON_READ,
    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
  )


def _are_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
  """Returns [number of tensors] bool: whether all elements of each are finite."""

  def reduce(*tensors):
    return tf.stack([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors])

  if tf.config.list_logical_devices("GPU"):
    # Hundreds of small kernels become a few, also where XLA does not compile the step.
    reduce = tf.function(reduce, jit_compile=True)
  return reduce(*tensors)


def _nothing_after(function: Callable[[], Any]) -> bool:
  """Calls it; the branches of a condition must return the same."""
  function()
  return False
