"""`fusion_barrier` is a barrier in XLA programs for GPUs, and the identity elsewhere."""

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.xla_barriers import fusion_barrier


def _compiled(function, device):
  with ops.use_target_device(device):
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return compiled.get_concrete_function(tf.TensorSpec([2, 3]))


@pytest.mark.parametrize(("device", "barriers"), [("GPU", True), ("CPU", False), ("TPU", False)])
def test_barrier_only_in_gpu_programs(device, barriers):
  compiled = _compiled(lambda x: fusion_barrier(x + 1.0) * 2.0, device)
  operations = compiled.graph.get_operations()
  assert any(op.type == "XlaOptimizationBarrier" for op in operations) == barriers


def test_values_shapes_and_derivatives_do_not_change():
  def cubed(x):
    y = fusion_barrier(x)
    assert y.shape == x.shape
    return y * y * y

  def derivatives(x):
    with tf.GradientTape() as outer:
      outer.watch(x)
      with tf.GradientTape() as inner:
        inner.watch(x)
        y = cubed(x)
      first = inner.gradient(y, x)
    return y, first, outer.gradient(first, x)

  x = tf.constant([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]])
  y, first, second = _compiled(derivatives, "GPU")(x)
  tf.debugging.assert_near(y, x**3)
  tf.debugging.assert_near(first, 3 * x**2)
  tf.debugging.assert_near(second, 6 * x)


def test_returns_the_same_tensor_outside_xla():
  with ops.use_target_device("GPU"):
    x = tf.constant([1.0, 2.0])
    assert fusion_barrier(x) is x
