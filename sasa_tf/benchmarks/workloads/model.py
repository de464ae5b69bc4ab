"""Classifiers: inference, or a training step with SGD, on ImageNet's 1,000 classes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import Workload, policy_name, random_tensors
from sasa_tf.tf_keras import SASAResNetClassifier

CLASSES = 1000
# Keeps float16 gradients from underflowing. It is constant, as this training need not converge.
_FLOAT16_LOSS_SCALE = 1024.0


def _classifier(case: Case, architecture: dict[str, Any], implementation: str) -> tf_keras.Model:
  previous_policy = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy(policy_name(case.dtype))
  try:
    return SASAResNetClassifier(
      case.model_id,
      CLASSES,
      case.shape,
      num_heads=case.num_heads,
      kernel_size=case.kernel_size,
      border=case.border,
      implementation=implementation,
      **architecture,
    )
  finally:
    tf_keras.mixed_precision.set_global_policy(previous_policy)


def network(case: Case, architecture: dict[str, Any], implementation: str) -> Workload:
  """Returns a classifier with a `SASAResNet` backbone.

  Args:
    case: with mode "forward" the step is inference; otherwise it is loss, gradients and momentum
      update, with batch normalization in training mode.
    architecture: the candidate's arguments of `SASAResNet`.
    implementation: of its attention.

  Raises:
    ValueError: the case has dilation, which models do not support.
  """
  if case.dilation_rate != 1:
    raise ValueError(
      f"SASAResNet does not support dilation; received dilation_rate={case.dilation_rate}. Omit "
      "--dilation_rate for the target model."
    )
  model = _classifier(case, architecture, implementation)
  parameters = sum(int(tf.size(weight)) for weight in model.trainable_variables)
  images = random_tensors([[case.batch_size, *case.shape]], "float32", [1.0])
  if case.mode == "forward":
    return Workload(
      lambda inputs: [model(inputs[0], training=False)], images, model.variables, parameters
    )
  # An optimizer that compiles its updates would hide that the step is not compiled.
  optimizer = tf_keras.optimizers.SGD(1e-3, momentum=0.9, jit_compile=False)
  optimizer.build(model.trainable_variables)
  labels = tf.random.stateless_uniform([case.batch_size], [0, 0], 0, CLASSES, tf.int32)
  scale = _FLOAT16_LOSS_SCALE if case.dtype == "float16" else 1.0

  def training_step(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
      logits = model(inputs[0], training=True)
      losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
      loss = tf.reduce_mean(losses) * scale
    gradients = tape.gradient(loss, model.trainable_variables)
    if scale != 1.0:
      gradients = [gradient / scale for gradient in gradients]
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return [loss / scale]

  variables = [*model.variables, *optimizer.variables]
  return Workload(training_step, images, variables, parameters)
