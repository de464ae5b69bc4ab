"""The attention stem as exported models compute it: equal to the layers, with pooled blocks."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers import pooling_within_stem
from sasa_tf.ops.export_context import is_tracing_for_export
from tests.layers.bindings import BINDINGS, both_bindings

each_variant = pytest.mark.parametrize("variant", ["mixture", "standalone", "conv_values"])


def images(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def draw_weights(layer):
  """Gives the layer different weights, and batch norms channels of gamma -1, 0 and 1."""
  random = np.random.default_rng(1)
  for weight in layer.weights:
    values = random.uniform(0.5, 1.5, weight.shape)
    if "variance" not in weight.name:
      values *= np.sign(random.integers(-1, 2, weight.shape))
    weight.assign(values)


def exported(function, *specs):
  with ops.tracing_for_export():
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def operations(concrete):
  definition = concrete.graph.as_graph_def()
  return [node.op for node in definition.node]


def largest_array(concrete):
  """Returns the number of elements of the largest tensor that a graph of static sizes computes."""
  outputs = [x for op in concrete.graph.get_operations() for x in op.outputs]
  return max(x.shape.num_elements() for x in outputs if x.shape.is_fully_defined())


@both_bindings
@each_variant
@pytest.mark.parametrize("size", [(8, 12), (7, 10), (3, 2)], ids=str)
def test_equals_the_layer(keras_api, variant, size):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(16, num_heads=2, variant=variant, num_mixtures=3, scale=0.7)
  x = images(3, *size, 3)
  layer(x)
  draw_weights(layer)
  expected = np.array(layer(x))
  for spec in ([None, *size, 3], [None] * 3 + [3], [3, *size, 3]):
    concrete = exported(layer, tf.TensorSpec(spec))
    np.testing.assert_allclose(concrete(tf.constant(x)), expected, rtol=1e-4, atol=1e-5)
    empty = concrete(tf.zeros([0, *size, 3])) if spec[0] is None else expected[:0]
    assert empty.shape == (0, *size, 16)


@both_bindings
@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_keeps_the_dtype(keras_api, dtype):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(16, num_heads=2, dtype=dtype)
  x = tf.cast(images(1, 8, 8, 3), layer.compute_dtype)
  expected = layer(x)
  concrete = exported(layer, tf.TensorSpec(x.shape, x.dtype))
  found = concrete(x)
  assert found.dtype == expected.dtype
  tolerance = 1e-2 if dtype == "mixed_bfloat16" else 1e-5
  np.testing.assert_allclose(
    tf.cast(found, tf.float32), tf.cast(expected, tf.float32), rtol=tolerance, atol=tolerance
  )


@both_bindings
@pytest.mark.parametrize("size", [16, 15], ids=str)
def test_pooled_blocks_equal_the_layers(keras_api, size):
  keras, binding = BINDINGS[keras_api]
  stem = binding.AttentionStem(16, num_heads=2)
  norm = keras.layers.BatchNormalization()
  pool = binding.StemPooling2D(4, padding="same")
  x = images(2, size, size, 3)
  norm(stem(x))
  draw_weights(stem)
  draw_weights(norm)

  def apply(x):
    if is_tracing_for_export() and stem.pools_blocks(x):
      with pooling_within_stem(norm.gamma):
        return pool(norm(stem(x), training=False))
    return pool(norm(stem(x), training=False))

  concrete = exported(apply, tf.TensorSpec([None, size, size, 3]))
  np.testing.assert_allclose(concrete(tf.constant(x)), apply(x), rtol=1e-4, atol=1e-5)
  assert ("MaxPool" in operations(concrete)) == (size == 15)
  assert concrete.structured_outputs.shape.as_list() == [None, 4, 4, 16]


@both_bindings
@pytest.mark.parametrize("name", ["SASAResNet", "SASAResNetClassifier"])
def test_models_pool_within_the_stem(keras_api, name):
  _, binding = BINDINGS[keras_api]
  arguments = {"num_classes": 5} if name == "SASAResNetClassifier" else {}
  model = getattr(binding, name)(
    model_id=26,
    stem="attention",
    attention_groups=(),
    width_multiplier=0.125,
    input_shape=(64, 64, 3),
    **arguments,
  )
  draw_weights(model.get_layer("stem_norm"))
  x = images(1, 64, 64, 3)

  def outputs(x, **options):
    found = model(x, **options)
    return found["5"] if isinstance(found, dict) else found

  concrete = exported(outputs, tf.TensorSpec([1, 64, 64, 3]))
  np.testing.assert_allclose(concrete(tf.constant(x)), outputs(x), rtol=1e-3, atol=1e-5)
  assert "MaxPool" not in operations(concrete)
  with ops.tracing_for_export():
    training = tf.function(lambda x: outputs(x, training=True)).get_concrete_function(
      tf.TensorSpec([1, 64, 64, 3])
    )
  assert "MaxPool" in operations(training)


@both_bindings
def test_models_of_single_layers_do_not_pool(keras_api):
  keras, binding = BINDINGS[keras_api]
  network = binding.SASAResNet(26, "attention", (), width_multiplier=0.125, input_shape=(64, 64, 3))
  model = keras.Model(network.inputs, network.get_layer("stem_norm").output)
  concrete = exported(model, tf.TensorSpec([None, 64, 64, 3]))
  x = images(1, 64, 64, 3)
  np.testing.assert_allclose(concrete(tf.constant(x)), model(x), rtol=1e-3, atol=1e-5)


def test_the_output_of_all_pixels_is_never_computed():
  _, binding = BINDINGS["keras"]
  stem = binding.AttentionStem(64)
  stem(images(1, 224, 224, 3))

  def pooled(x):
    with pooling_within_stem(tf.ones([64])):
      return stem(x)

  concrete = exported(pooled, tf.TensorSpec([1, 224, 224, 3]))
  assert largest_array(concrete) < 224 * 224 * 64 / 4
  batches = exported(pooled, tf.TensorSpec([None, 224, 224, 3]))
  assert "Shape" not in operations(batches)
