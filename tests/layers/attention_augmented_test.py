"""AttentionAugmentedConv2D: values, parameters, known and unknown sizes, errors."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.layers.bindings import BINDINGS, both_bindings, tf_variables

WIDTHS = {"filters": 10, "key_filters": 6, "value_filters": 4, "num_heads": 2}


def images(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def pooled(x):
  """3x3 average pooling of [H, W, C] with stride 2 and padding "SAME"."""
  height, width, channels = x.shape
  result = np.zeros([-(-height // 2), -(-width // 2), channels])
  for i, j in np.ndindex(*result.shape[:2]):
    # For an even size, SAME adds its one pixel of padding at the end.
    y, x0 = 2 * i - height % 2, 2 * j - width % 2
    result[i, j] = x[max(y, 0) : y + 3, max(x0, 0) : x0 + 3].mean(axis=(0, 1))
  return result


def attention_oracle(layer, image):
  """[H, W, C] -> [H, W, value_filters], the attention channels."""
  names = ("query_kernel", "key_kernel", "value_kernel", "output_kernel")
  query, key, value, output = (np.array(getattr(layer, name), np.float64) for name in names)
  height, width, _ = image.shape
  heads, depth = layer.num_heads, layer.key_filters // layer.num_heads
  if layer.positions == "absolute":
    image = image + ops.sinusoidal_positions(height, width, image.shape[-1]).numpy()
  queries, keys, values = (
    (image @ kernel).reshape(height, width, heads, -1) for kernel in (query, key, value)
  )
  result = np.zeros([height, width, heads, values.shape[-1]])
  for i, j, n in np.ndindex(height, width, heads):
    logits = np.zeros([height, width])
    for y, x in np.ndindex(height, width):
      r = keys[y, x, n]
      if layer.positions == "relative":
        r = r + np.array(layer.relative_rows)[height - 1 + y - i]
        r = r + np.array(layer.relative_columns)[width - 1 + x - j]
      logits[y, x] = depth**-0.5 * queries[i, j, n] @ r
    weights = np.exp(logits - logits.max())
    result[i, j, n] = np.einsum("yx,yxd->d", weights / weights.sum(), values[:, :, n])
  return result.reshape(height, width, -1) @ output


@both_bindings
@pytest.mark.parametrize("positions", ["relative", "absolute", "none"])
@pytest.mark.parametrize(("strides", "size"), [(1, (4, 3)), (2, (6, 5))])
def test_matches_convolution_and_attention_oracle(keras_api, positions, strides, size):
  keras, binding = BINDINGS[keras_api]
  x = images(2, *size, 5)
  layer = binding.AttentionAugmentedConv2D(**WIDTHS, positions=positions, strides=strides)
  result = np.array(layer(x))
  convolution = keras.layers.Conv2D(6, 3, strides=strides, padding="same", use_bias=False)
  convolution.build(x.shape)
  convolution.set_weights([np.array(layer.convolution_kernel)])
  np.testing.assert_allclose(result[..., :6], convolution(x), atol=1e-5)
  attended = [attention_oracle(layer, pooled(image) if strides == 2 else image) for image in x]
  np.testing.assert_allclose(result[..., 6:], attended, atol=1e-5)
  assert result.shape == tuple(layer.compute_output_shape(x.shape))


@both_bindings
def test_parameters(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionAugmentedConv2D(128, key_filters=160, value_filters=16, strides=2)
  layer.build((None, 56, 55, 64))
  convolution, projections = 9 * 64 * 112, 64 * (160 + 160 + 16) + 16 * 16
  assert layer.count_params() == convolution + projections + (2 * 28 - 1 + 2 * 28 - 1) * 20


@both_bindings
def test_value_filters_equal_to_filters_omit_the_convolution(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionAugmentedConv2D(8, key_filters=8, value_filters=8, num_heads=2)
  x = images(1, 4, 3, 5)
  np.testing.assert_allclose(layer(x)[0], attention_oracle(layer, x[0]), atol=1e-5)
  assert layer.convolution_kernel is None
  assert len(layer.trainable_weights) == 6


@both_bindings
@pytest.mark.parametrize("strides", [1, 2])
def test_relative_positions_train_save_and_compile(keras_api, strides, tmp_path):
  """Conformance for inputs of known size; conformance_test uses unknown sizes."""
  keras, binding = BINDINGS[keras_api]
  x = images(2, 6, 5, 3)
  inputs = keras.Input(x.shape[1:])
  layer = binding.AttentionAugmentedConv2D(**WIDTHS, strides=strides)
  outputs = layer(inputs)
  assert tuple(outputs.shape[1:]) == tuple(layer.compute_output_shape(x.shape))[1:]
  model = keras.Model(inputs, outputs)
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(tf.sin(model(x)))
  variables = tf_variables(keras_api, model.trainable_weights)
  for weight, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
    assert np.abs(gradient).max() > 0, weight.name
  model.save(tmp_path / "model.keras")
  loaded = keras.models.load_model(tmp_path / "model.keras")
  np.testing.assert_allclose(model(x), loaded(x), atol=1e-6)
  compiled = tf.function(lambda inputs: layer(inputs), jit_compile=True)
  np.testing.assert_allclose(model(x), compiled(x), atol=1e-5)


@both_bindings
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_relative_positions_in_mixed_precision(keras_api, dtype):
  _, binding = BINDINGS[keras_api]
  x = images(2, 6, 5, 3)
  full = binding.AttentionAugmentedConv2D(**WIDTHS)
  mixed = binding.AttentionAugmentedConv2D(**WIDTHS, dtype=f"mixed_{dtype}")
  expected, _ = full(x), mixed(x)
  mixed.set_weights(full.get_weights())
  result = mixed(x)
  assert result.dtype == dtype
  assert all(tf.as_dtype(w.dtype) == tf.float32 for w in mixed.trainable_weights)
  np.testing.assert_allclose(tf.cast(result, tf.float32), expected, atol=0.05)


@both_bindings
@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"filters": 0}, "filters must be a positive int; received 0"),
    ({"strides": 1.5}, "strides must be a positive int"),
    ({"key_filters": 7}, "multiples of num_heads.*key_filters=7"),
    ({"value_filters": 3}, "multiples of num_heads.*value_filters=3"),
    ({"value_filters": 12}, "received value_filters=12 and filters=10. Choose at most 10"),
    ({"positions": "learned"}, "positions must be one of"),
  ],
)
def test_bad_arguments(keras_api, change, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.AttentionAugmentedConv2D(**{**WIDTHS, **change})


@both_bindings
def test_bad_inputs(keras_api):
  keras, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match="needs to know the channels"):
    binding.AttentionAugmentedConv2D(**WIDTHS)(keras.Input([8, 8, None]))
  with pytest.raises(
    ValueError, match=r"needs to know the H and W.*positions='absolute' or 'none'"
  ):
    binding.AttentionAugmentedConv2D(**WIDTHS)(keras.Input([8, None, 3]))
  layer = binding.AttentionAugmentedConv2D(**WIDTHS)
  layer(keras.Input([8, 8, 3]))
  with pytest.raises(ValueError, match=r"expected shape|was built for inputs of shape"):
    layer(keras.Input([8, 9, 3]))
