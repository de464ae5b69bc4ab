"""The layer with its projections, and Keras's 3x3 convolution of as many filters.

On Keras 3, whose layers can be called on weights that are handed over: so the measuring loop can
change them from step to step, and nothing that depends on weights alone is computed only once.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.precision import policy_name
from sasa_tf.benchmarks.workloads.workload import Workload, make_step, random_tensors, tensor_bytes
from sasa_tf.keras import LocalSelfAttention2D


def convolution(case: Case) -> Workload:
  """`Conv2D`, 3x3, of stride 1, without bias."""
  layer = keras.layers.Conv2D(
    case.shape[2], 3, padding="same", use_bias=False, dtype=policy_name(case.dtype)
  )
  return _workload(case, layer)


def attention(case: Case, implementation: str) -> Workload:
  """`LocalSelfAttention2D` as the models use it."""
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
    # Not `stateless_call`, which leaves mixed precision out.
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
