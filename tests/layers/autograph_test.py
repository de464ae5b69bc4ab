"""AutoGraph leaves operations, layers and models as they are, which saves seconds of tracing."""

import sys

import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.layers.bindings import BINDINGS, both_bindings


def converted(function, *arguments):
  """Returns the names of the functions that AutoGraph generates when `function` is traced."""
  names = set()

  def note(frame, event, argument):
    del argument
    if event == "call" and frame.f_code.co_name.startswith("tf__"):
      names.add(frame.f_code.co_name)

  sys.setprofile(note)
  try:
    tf.function(function).get_concrete_function(*arguments)
  finally:
    sys.setprofile(None)
  return names


def test_functions_of_the_user_are_converted():
  def branch(x):
    if tf.reduce_sum(x) > 0:
      x = -x
    return x

  assert "tf__branch" in converted(branch, tf.zeros([2]))


@pytest.mark.parametrize("implementation", ["auto", *ops.available_implementations()])
def test_operations(implementation):
  x, tables = tf.zeros([1, 20, 20, 2, 8]), [tf.zeros([3, 4])] * 2
  window = {"kernel_size": 3, "implementation": implementation}

  def step(x):
    ops.local_attention_2d(x, x, x, *tables, **window)
    ops.local_attention_2d_qkv_packed(tf.stack([x, x, x], axis=3), *tables, **window)
    ops.block_attention_2d(x, x, x, block_size=4)
    return ops.global_attention_2d(x, x, x)

  assert converted(step, x) == {"tf__step"}


@both_bindings
def test_layers_and_models(keras_api):
  binding = BINDINGS[keras_api][1]
  layers = [
    binding.LocalSelfAttention2D(8, 3, num_heads=2),
    binding.AttentionStem(8),
    binding.NonLocal2D(),
    binding.SqueezeExcitation2D(),
    binding.SASAResNet(26, input_shape=(16, 16, 3), width_multiplier=0.0625, stem="attention"),
  ]
  channels = (8, 3, 8, 8, 3)
  inputs = [tf.zeros([1, 16, 16, number]) for number in channels]

  def step(*inputs):
    return [layer(x) for layer, x in zip(layers, inputs, strict=True)]

  # The wrapper is TensorFlow's own function that stops the conversion.
  assert converted(step, *inputs) == {"tf__step", "tf__wrapper"}
