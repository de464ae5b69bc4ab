"""On accelerators the layer recomputes its projections in the backward pass.

On GPUs it does so for images of more than 16 x 16 pixels.
"""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.compiled import xla_custom_call
from tests.ops.programs import products

pytest.importorskip("tf_keras", reason="needs the extra garden")

from sasa_tf.tf_keras import LocalSelfAttention2D

pytestmark = pytest.mark.thorough


def layer_step(layer):
  def step(inputs, upstream):
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      output = layer(inputs)
    return tape.gradient(output, [inputs, *layer.trainable_variables], upstream)

  return step


@pytest.mark.parametrize("implementation", ["blocked", "fused"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_backward_pass_recomputes_the_projections(monkeypatch, implementation, use_bias):
  if implementation == "fused":
    if "fused" not in ops.available_implementations():
      pytest.skip("the compiled kernels have not been built")
    # Traces the program of a GPU, but with CPU kernels.
    monkeypatch.setitem(xla_custom_call.PLATFORMS, "GPU", "CPU")
  layer = LocalSelfAttention2D(8, 3, num_heads=2, use_bias=use_bias, implementation=implementation)
  inputs = tf.random.stateless_normal([2, 13, 20, 5], [0, 0])
  upstream = tf.random.stateless_normal([2, 13, 20, 8], [0, 1])
  layer.build(inputs.shape)
  step = layer_step(layer)
  expected = step(inputs, upstream)

  def projections():
    wide = f"{2 * 13 * 20},{3 * 8}"
    return products(step, inputs, upstream).count(wide)

  saved = projections()
  with ops.use_target_device("GPU"):
    assert projections() == saved + 1
    for jit in (False, True):
      found = tf.function(step, jit_compile=jit, autograph=False)(inputs, upstream)
      for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("device", "recomputed"), [("CPU", 0), ("GPU", 0), ("TPU", 1)])
def test_gpu_saves_the_projections_of_small_images(device, recomputed):
  layer = LocalSelfAttention2D(8, 3, num_heads=2, implementation="blocked")
  inputs, upstream = tf.zeros([2, 16, 16, 5]), tf.zeros([2, 16, 16, 8])
  layer.build(inputs.shape)

  def projections():
    wide = f"{2 * 16 * 16},{3 * 8}"
    return products(layer_step(layer), inputs, upstream).count(wide)

  with ops.use_target_device("CPU"):
    saved = projections()
  with ops.use_target_device(device):
    assert projections() == saved + recomputed


def test_second_derivatives_of_recomputed_projections():
  layer = LocalSelfAttention2D(4, 3, num_heads=2, implementation="blocked", dtype="float64")
  inputs = tf.random.stateless_normal([1, 2, 130, 3], [0, 0], dtype=tf.float64)
  layer.build(inputs.shape)

  def penalty_gradients():
    with tf.GradientTape() as outer:
      outer.watch(inputs)
      with tf.GradientTape() as inner:
        inner.watch(inputs)
        loss = tf.reduce_sum(layer(inputs) ** 2)
      penalty = tf.reduce_sum(inner.gradient(loss, inputs) ** 2)
    return outer.gradient(penalty, [inputs, layer.query_kernel, layer.relative_rows])

  expected = penalty_gradients()
  with ops.use_target_device("GPU"):
    found = penalty_gradients()
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-9)
