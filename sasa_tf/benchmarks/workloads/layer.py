"""The attention layer with its projections, and Keras's 3x3 convolution with as many filters.

The layers are those of Keras 3, which can be called with the weights as arguments. The weights are
inputs of the step, so the benchmark loop changes them in every step and the compiler cannot hoist
computations on weights out of the loop.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import (
  Workload,
  make_step,
  policy_name,
  random_tensors,
  tensor_bytes,
)
from sasa_tf.keras import LocalSelfAttention2D


def convolution(case: Case) -> Workload:
  """Returns a 3x3 `Conv2D` with stride 1 and without bias."""
  layer = keras.layers.Conv2D(
    case.shape[2],
    3,
    padding="same",
    data_format="channels_last",
    use_bias=False,
    dtype=policy_name(case.dtype),
  )
  return _workload(case, layer)


def attention(case: Case, implementation: str) -> Workload:
  """Returns `LocalSelfAttention2D` with the arguments that the models use."""
  layer = LocalSelfAttention2D(
    case.shape[2],
    kernel_size=case.kernel_size,
    num_heads=case.num_heads,
    dilation_rate=case.dilation_rate,
    border=case.border,
    implementation=implementation,
    dtype=policy_name(case.dtype),
  )
  return _workload(case, layer)


def _workload(case: Case, layer: Any) -> Workload:
  maps = [case.batch_size, *case.shape]
  layer.build(tuple(maps))
  weights = [tf.identity(weight) for weight in layer.trainable_variables]
  images, upstream = random_tensors([maps, maps], case.dtype, [1.0, 1.0])

  def function(images: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
    # `stateless_call` would ignore mixed precision.
    mapping = list(zip(layer.trainable_variables, weights, strict=True))
    with keras.StatelessScope(state_mapping=mapping):
      return layer(images)

  forward = case.mode == "forward"
  return Workload(
    make_step(function, case.mode),
    [images, *weights] if forward else [images, *weights, upstream],
    parameters=sum(int(tf.size(weight)) for weight in weights),
    required_bytes=(2 if forward else 5) * tensor_bytes(images)
    + (1 if forward else 3) * sum(map(tensor_bytes, weights)),
  )
