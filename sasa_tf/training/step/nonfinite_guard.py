"""Detects non-finite losses and gradients inside the training step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from sasa_tf.errors import UserError

POLICIES = ("stop", "skip")

# Names and initial values of the variables. A step of -1 means that all steps were finite.
_INITIAL_VALUES = {"nonfinite_step": -1, "nonfinite_tensor": 0, "nonfinite_count": 0}
_ADVICE = (
  "The last checkpoint was saved before that step. Lower the learning rate, lengthen its warm-up, "
  "or clip the gradients (trainer.optimizer_config). --on_nonfinite=skip skips such steps."
)


class NonfiniteGuard:
  """Checks the loss and the gradients of every step, in the program that applies the gradients.

  A step reduces each tensor to one boolean, which reads the gradients once and never blocks the
  host. The host reads the result after a loop of steps.

  With the policy "skip", a step with a non-finite loss or gradient on any replica changes nothing
  on all of them: no weight, no moving average of batch normalization, no optimizer variable.
  """

  def __init__(
    self,
    policy: str,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    global_step: tf.Variable,
  ):
    """Creates the guard's variables. Must be called in the strategy's scope.

    Args:
      policy: "stop" or "skip".
      model: model whose non-trainable variables, such as moving averages, a skipped step restores.
      optimizer: optimizer of the training. With a LossScaleOptimizer only the loss is checked:
        infinite gradients are normal there, and it skips them itself.
      global_step: number of completed steps.

    Raises:
      UserError: the policy is unknown.
    """
    if policy not in POLICIES:
      raise UserError(f"--on_nonfinite: expected stop or skip; received {policy!r}.")
    self._skips = policy == "skip"
    self._averages = list(model.non_trainable_variables) if self._skips else []
    self._has_loss_scale = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    self._global_step = global_step
    self._tensor_names: list[str] = []
    self._first_step, self._first_tensor, self._count = (
      _create_counter(name, value) for name, value in _INITIAL_VALUES.items()
    )

  def save_averages(self) -> list[tf.Tensor]:
    """Returns the values that the forward pass is about to change, for `apply_update`."""
    return [tf.identity(variable) for variable in self._averages]

  def apply_update(
    self,
    loss: tf.Tensor,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    saved_averages: Sequence[tf.Tensor],
    update: Callable[[], Any],
  ) -> None:
    """Checks a step, then updates the weights or skips it. Must be called in replica context.

    Args:
      loss: scalar loss, reduced over the replicas, so that all make the same decision.
      gradients: gradients, reduced too.
      variables: the variables of the gradients.
      saved_averages: result of `save_averages`, from before the forward pass.
      update: applies the gradients without a merge call.
    """
    checked = [loss] if self._has_loss_scale else [loss, *gradients]
    self._tensor_names = ["loss", *(f"gradient of {variable.name}" for variable in variables)]
    are_finite = _are_finite(checked)
    finite = tf.reduce_all(are_finite)
    is_first = tf.logical_and(~finite, self._first_step < 0)
    step = tf.cast(self._global_step, tf.int64) + 1
    indices = tf.range(len(checked), dtype=tf.int64)
    first = tf.reduce_min(tf.where(are_finite, tf.int64.max, indices))
    self._first_step.assign(tf.where(is_first, step, self._first_step))
    self._first_tensor.assign(tf.where(is_first, first, self._first_tensor))
    self._count.assign_add(tf.cast(~finite, tf.int64))
    if not self._skips:
      update()
      return
    tf.cond(finite, lambda: _call(update), lambda: False)
    for variable, saved in zip(self._averages, saved_averages, strict=True):
      variable.assign(tf.where(finite, variable, saved))

  def update_metric(self, metric: tf_keras.metrics.Metric, *arguments: Any) -> None:
    """Updates a metric. The policy "skip" ignores updates with a non-finite argument."""
    values = [
      value
      for value in tf.nest.flatten(arguments)
      if tf.is_tensor(value) and value.dtype.is_floating
    ]
    if not self._skips or not values:
      metric.update_state(*arguments)
      return
    finite = tf.reduce_all(_are_finite(values))
    tf.cond(finite, lambda: _call(lambda: metric.update_state(*arguments)), lambda: False)

  def check(self, steps: int, logs: Mapping[str, Any]) -> None:
    """Reports non-finite steps. Must be called after each loop of steps.

    Args:
      steps: number of steps of the loop.
      logs: metrics of the loop.

    Raises:
      UserError: a step or a metric was not finite. With "skip": all steps of the loop, or a metric.
    """
    first, count = int(self._first_step.numpy()), int(self._count.numpy())
    if first >= 0:
      tensor = self._tensor_names[int(self._first_tensor.numpy())]
      problem = f"step {first}: the {tensor} is not finite"
      self._first_step.assign(-1)
      self._count.assign(0)
      if self._skips and count < steps:
        print(f"warning: {problem}; skipped {count} of {steps} steps", file=sys.stderr, flush=True)
        return
      if self._skips:
        problem += f"; this happened in all {count} steps of the loop: skipping does not help"
      raise UserError(f"{problem}. {_ADVICE}")
    for name, value in logs.items():
      value = tf.convert_to_tensor(value)
      if value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(value))):
        last = int(self._global_step.numpy())
        raise UserError(
          f"steps {last - steps + 1} to {last}: the metric {name} is not finite, while loss and "
          f"gradients are. {_ADVICE}"
        )


def _create_counter(name: str, value: int) -> tf.Variable:
  """Returns an integer variable with one copy per replica, all of the same value."""
  return tf.Variable(
    value,
    dtype=tf.int64,
    trainable=False,
    name=name,
    synchronization=tf.VariableSynchronization.ON_READ,
    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
  )


def _are_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
  """Returns a boolean for each tensor: whether all of its elements are finite."""

  def reduce(*tensors):
    return tf.stack([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors])

  if tf.config.list_logical_devices("GPU"):
    # Fuses hundreds of small kernels into a few, also where XLA does not compile the step.
    reduce = tf.function(reduce, jit_compile=True)
  return reduce(*tensors)


def _call(function: Callable[[], Any]) -> bool:
  """Calls the function. Both branches of `tf.cond` must return the same type."""
  function()
  return False
