"""LocalSelfAttention2D: values, options, errors."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.layers.bindings import BINDINGS, both_bindings, needs_tf_keras
from tests.ops import oracle


def images(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


@both_bindings
@pytest.mark.parametrize("border", ["zero", "mask"])
def test_matches_oracle(keras_api, border):
  _, binding = BINDINGS[keras_api]
  x = images(2, 5, 4, 3)
  layer = binding.LocalSelfAttention2D(8, (3, 5), num_heads=2, border=border, dilation_rate=(1, 2))
  result = layer(x)
  query, key, value = (
    (x @ np.array(kernel)).reshape(2, 5, 4, 2, 4)
    for kernel in (layer.query_kernel, layer.key_kernel, layer.value_kernel)
  )
  expected = oracle.local_attention(
    query,
    key,
    value,
    np.array(layer.relative_rows),
    np.array(layer.relative_columns),
    kernel_size=(3, 5),
    dilation_rate=(1, 2),
    border=border,
  )
  np.testing.assert_allclose(result, expected.reshape(2, 5, 4, 8), atol=1e-5)


@both_bindings
def test_content_false_has_no_key_projection(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(8, 3, num_heads=2, content=False)
  layer.build((None, None, None, 3))
  assert {w.name.split("/")[-1].split(":")[0] for w in layer.trainable_weights} == {
    "query_kernel",
    "value_kernel",
    "relative_rows",
    "relative_columns",
  }
  assert layer(images(1, 4, 4, 3)).shape == (1, 4, 4, 8)


@both_bindings
@pytest.mark.parametrize(("positions", "weights"), [("relative", 5), ("absolute", 3), ("none", 3)])
def test_weights_depend_on_positions(keras_api, positions, weights):
  _, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(8, 3, num_heads=2, positions=positions)
  layer.build((None, 6, 6, 3))
  assert len(layer.trainable_weights) == weights


@both_bindings
def test_constant_image_gives_constant_interior_without_positions_only(
  keras_api,
):
  _, binding = BINDINGS[keras_api]
  x = np.ones((1, 9, 9, 4), "float32")
  spread = {}
  for positions in ("none", "absolute"):
    layer = binding.LocalSelfAttention2D(8, 3, num_heads=2, positions=positions)
    spread[positions] = np.ptp(np.array(layer(x))[0, 2:-2, 2:-2], axis=(0, 1)).max()
  assert spread["none"] < 1e-6 < 1e-3 < spread["absolute"]


@both_bindings
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("strides", [1, 2])
def test_output_shape_matches_padded_convolution(keras_api, size, strides):
  keras, binding = BINDINGS[keras_api]
  x = images(2, *size, 3)
  attention = binding.LocalSelfAttention2D(8, 3, num_heads=2, strides=strides)
  convolution = keras.layers.Conv2D(8, 3, strides=strides, padding="same")
  assert attention(x).shape == convolution(x).shape
  assert tuple(attention.compute_output_shape((2, *size, 3))) == tuple(attention(x).shape)


@both_bindings
def test_strides_average_pool_after_the_attention(keras_api):
  _, binding = BINDINGS[keras_api]
  x = images(1, 6, 6, 3)
  full = binding.LocalSelfAttention2D(8, 3, num_heads=2)
  full.build(x.shape)
  pooled = binding.LocalSelfAttention2D(8, 3, num_heads=2, strides=2)
  pooled.build(x.shape)
  pooled.set_weights(full.get_weights())
  expected = np.array(full(x)).reshape(1, 3, 2, 3, 2, 8).mean(axis=(2, 4))
  np.testing.assert_allclose(pooled(x), expected, atol=1e-6)


@both_bindings
def test_initial_query_key_and_value_kernels_differ(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(8, 3, num_heads=2)
  layer.build((None, 4, 4, 8))
  query, key, value = (
    np.array(k) for k in (layer.query_kernel, layer.key_kernel, layer.value_kernel)
  )
  assert not np.allclose(query, key) and not np.allclose(key, value)


@both_bindings
def test_value_initializer_and_bias(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(
    8, 3, num_heads=2, value_initializer="zeros", bias_initializer="ones", use_bias=True
  )
  # All values equal the bias 1, so every weighted mean inside the image is 1.
  result = np.array(layer(images(1, 7, 7, 3)))
  np.testing.assert_allclose(result[:, 1:-1, 1:-1], 1.0, atol=1e-6)
  assert result[0, 0, 0].max() < 1.0  # zero values outside the image lower the mean


@both_bindings
def test_regularizers_apply_to_projections_and_embeddings(keras_api):
  keras, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(
    8, 3, num_heads=2, kernel_regularizer=keras.regularizers.L2(0.5), relative_regularizer="l2"
  )
  layer.build((None, 4, 4, 8))
  kernels = sum(
    0.5 * np.sum(np.square(k)) for k in (layer.query_kernel, layer.key_kernel, layer.value_kernel)
  )
  tables = sum(0.01 * np.sum(np.square(t)) for t in (layer.relative_rows, layer.relative_columns))
  np.testing.assert_allclose(sum(map(float, layer.losses)), kernels + tables, rtol=1e-5)


@both_bindings
def test_activation_is_applied_last(keras_api):
  _, binding = BINDINGS[keras_api]
  assert (
    np.min(binding.LocalSelfAttention2D(8, 3, activation="relu", num_heads=2)(images(1, 5, 5, 3)))
    == 0
  )


@both_bindings
def test_attention_weights_of_selected_pixels(keras_api):
  _, binding = BINDINGS[keras_api]
  x = images(2, 6, 5, 3)
  layer = binding.LocalSelfAttention2D(8, 3, num_heads=2)
  layer.build(x.shape)
  everything = layer.attention_weights(x)
  assert everything.shape == (2, 6, 5, 2, 3, 3)
  np.testing.assert_allclose(
    tf.reduce_sum(everything, axis=[-2, -1]), np.ones((2, 6, 5, 2)), rtol=1e-5
  )
  chosen = layer.attention_weights(x, pixels=[[0, 0], [3, 4]])
  np.testing.assert_allclose(chosen[:, 1], everything[:, 3, 4], atol=1e-6)


@needs_tf_keras
@both_bindings
def test_tensor_of_the_other_keras_names_the_right_import(keras_api):
  _, binding = BINDINGS[keras_api]
  (other,) = set(BINDINGS) - {keras_api}
  foreign, _ = BINDINGS[other]
  with pytest.raises(TypeError, match=f"from sasa_tf.{other} import LocalSelfAttention2D"):
    binding.LocalSelfAttention2D(16)(foreign.Input([8, 8, 3]))
  with pytest.raises(TypeError, match=f"from sasa_tf.{other} import SASAResNet"):
    binding.SASAResNet(26)(foreign.Input([32, 32, 3]))


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"kernel_size": 4}, r"odd.*received \(4, 4\).*Use \(5, 5\)"),
    ({"kernel_size": 0}, "kernel_size must be a positive int"),
    ({"filters": 12, "num_heads": 8}, "multiple of num_heads.*nearest multiples are 8 and 16"),
    ({"filters": 24, "num_heads": 8}, "even head width.*multiple of 16"),
    ({"filters": 0}, "positive ints"),
    ({"positions": "learned"}, "positions must be one of"),
    ({"content": False, "positions": "none"}, "needs positions='relative'"),
    ({"border": "reflect"}, "border must be one of"),
    ({"strides": 0}, "strides must be a positive int"),
    ({"implementation": "magic"}, "implementation must be one of"),
  ],
)
def test_bad_arguments(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.LocalSelfAttention2D(**{"filters": 16, **arguments})


@both_bindings
def test_bad_inputs(keras_api):
  keras, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match="expected ndim=4"):
    binding.LocalSelfAttention2D(16)(keras.Input([8, 3]))
  with pytest.raises(ValueError, match="needs to know the channels"):
    binding.LocalSelfAttention2D(16)(keras.Input([8, 8, None]))
  layer = binding.LocalSelfAttention2D(8, num_heads=2)
  layer(keras.Input([8, 8, 3]))
  with pytest.raises(ValueError, match=r"axis -1|was built for inputs of shape"):
    layer(keras.Input([8, 8, 4]))


@both_bindings
@pytest.mark.parametrize("implementation", ops.available_implementations())
@pytest.mark.parametrize("size", [(8, 8), (None, None)])
def test_empty_batch(keras_api, implementation, size):
  """A replica can receive an empty batch at the end of an evaluation."""
  _, binding = BINDINGS[keras_api]
  layer = binding.LocalSelfAttention2D(8, 3, num_heads=2, strides=2, implementation=implementation)
  function = tf.function(layer, input_signature=[tf.TensorSpec([None, *size, 3])])
  assert function(tf.zeros([4, 8, 8, 3])).shape == (4, 4, 4, 8)
  assert function(tf.zeros([0, 8, 8, 3])).shape == (0, 4, 4, 8)


@both_bindings
def test_exported_models_contain_no_compiled_kernels(keras_api, tmp_path):
  keras, binding = BINDINGS[keras_api]
  inputs = keras.Input([24, 24, 4])
  model = keras.Model(inputs, binding.LocalSelfAttention2D(32, num_heads=4)(inputs))
  model.export(str(tmp_path))
  assert b"XlaCallModule" not in (tmp_path / "saved_model.pb").read_bytes()
  traced = tf.function(model).get_concrete_function(tf.TensorSpec([None, 24, 24, 4]))
  compiled = any(node.op == "XlaCallModule" for node in traced.graph.as_graph_def().node)
  assert compiled == ("fused" in ops.available_implementations())


@needs_tf_keras
def test_bindings_agree():
  x = images(2, 9, 6, 5)
  layers = [binding.LocalSelfAttention2D(8, 5, num_heads=2) for _, binding in BINDINGS.values()]
  for layer in layers:
    layer.build(x.shape)
  layers[1].set_weights(layers[0].get_weights())
  np.testing.assert_array_equal(layers[0](x), layers[1](x))


@both_bindings
@pytest.mark.parametrize("implementation", ops.available_implementations())
def test_implementations_agree(keras_api, implementation):
  _, binding = BINDINGS[keras_api]
  x = images(2, 9, 6, 5)
  reference = binding.LocalSelfAttention2D(8, 5, num_heads=2, implementation="reference")
  reference.build(x.shape)
  other = binding.LocalSelfAttention2D(8, 5, num_heads=2, implementation=implementation)
  other.build(x.shape)
  other.set_weights(reference.get_weights())
  np.testing.assert_allclose(reference(x), other(x), atol=1e-5)
