"""Selection of the compiled stem kernels and their use in a training step."""

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import library

pytest.importorskip("tf_keras", reason="needs the extra garden")

from sasa_tf.tf_keras import AttentionStem

pytestmark = pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)


def operations(implementation, function, *arguments):
  with ops.use_implementation(implementation):
    concrete = tf.function(function, autograph=False).get_concrete_function(*arguments)
  return [operation.type for operation in concrete.graph.get_operations()]


def test_training_step_has_two_kernel_calls_and_no_gradient_of_the_pixels():
  layer = AttentionStem(8, num_heads=2)
  images = tf.random.normal([2, 8, 8, 3])
  layer.build(images.shape)

  @tf.function
  def step(images):
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(layer(images) ** 2)
    return tape.gradient(loss, layer.trainable_variables)

  concrete = step.get_concrete_function(images)
  assert [o.type for o in concrete.graph.get_operations()].count("XlaCallModule") == 2
  text = tf.function(step.python_function, jit_compile=True).experimental_get_compiler_ir(images)(
    stage="optimized_hlo"
  )
  assert text.count('custom_call_target="sasa_tf_stem_attention') == 2
  assert "[8,16,2,16]" not in text  # logits of the TensorFlow implementation


def test_when_the_compiled_kernels_are_used():
  layer = AttentionStem(8, num_heads=2)
  positions = AttentionStem(8, num_heads=2, variant="standalone")
  images = tf.TensorSpec([2, 8, 8, 3])
  for built in (layer, positions):
    built.build(images.shape)
  assert "XlaCallModule" in operations("auto", layer, images)
  assert "XlaCallModule" not in operations("blocked", layer, images)
  assert "XlaCallModule" not in operations("auto", positions, images)
  with ops.use_target_device("TPU"):
    assert "XlaCallModule" not in operations("auto", layer, images)


@pytest.mark.parametrize("platforms", [("CPU",), ("CPU", "CUDA")])
def test_gpu_uses_the_kernels_only_if_built_for_cuda(monkeypatch, platforms):
  layer = AttentionStem(8, num_heads=2)
  images = tf.TensorSpec([2, 8, 8, 3])
  layer.build(images.shape)
  monkeypatch.setattr(library, "load", lambda: library.Library(platforms, "not for GPUs"))
  with ops.use_target_device("GPU"):
    taken = "XlaCallModule" in operations("auto", layer, images)
  assert taken == ("CUDA" in platforms)
