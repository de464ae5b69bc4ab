"""AttentionStem: values, variants, errors."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.types import DEVICES
from tests.layers.bindings import BINDINGS, both_bindings, needs_tf_keras
from tests.ops import stem_oracle

VARIANTS = ("mixture", "standalone", "conv_values")
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def images(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def convolved(x, kernel):
  """Convolution with stride 1 and padding "same", which pads even kernels more at the end."""
  size = kernel.shape[0]
  before, after = (size - 1) // 2, size // 2
  padded = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
  result = np.zeros([*x.shape[:3], kernel.shape[3]])
  for a, b in np.ndindex(size, size):
    result += padded[:, a : a + x.shape[1], b : b + x.shape[2]] @ kernel[a, b]
  return result


def expected_values(layer, x):
  if layer.variant == "mixture":
    weights = (
      layer.value_kernels,
      layer.embedding_rows,
      layer.embedding_columns,
      layer.mixture_vectors,
    )
    return stem_oracle.value_mixture(x, *map(np.array, weights))
  kernel = np.array(layer.value_kernel)
  return x @ kernel if layer.variant == "standalone" else convolved(x, kernel)


@both_bindings
@each_variant
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(8, 4), (6, 5), (1, 1)], ids=str)
def test_matches_oracle(keras_api, variant, device, size):
  _, binding = BINDINGS[keras_api]
  x = images(2, *size, 3)
  layer = binding.AttentionStem(8, num_heads=2, num_mixtures=3, variant=variant, scale=0.7)
  with ops.use_target_device(device):
    result = layer(x)
  query, key, value = (
    part.reshape(2, *size, 2, 4)
    for part in (
      x @ np.array(layer.query_kernel),
      x @ np.array(layer.key_kernel),
      expected_values(layer, x),
    )
  )
  tables = ()
  if variant == "standalone":
    tables = np.array(layer.relative_rows), np.array(layer.relative_columns)
  arguments = {"block_size": (4, 4), "scale": 0.7}
  expected = stem_oracle.block_attention(query, key, value, *tables, **arguments)
  np.testing.assert_allclose(result, expected.reshape(2, *size, 8), atol=1e-5)
  weights = stem_oracle.block_attention_weights(query, key, *tables, **arguments)
  np.testing.assert_allclose(layer.attention_weights(x), weights, atol=1e-5)


@both_bindings
@pytest.mark.parametrize(
  ("variant", "shapes"),
  [
    (
      "mixture",
      {
        "value_kernels": (8, 3, 64),
        "embedding_rows": (4, 16),
        "embedding_columns": (4, 16),
        "mixture_vectors": (8, 16),
      },
    ),
    (
      "standalone",
      {"value_kernel": (3, 64), "relative_rows": (7, 8), "relative_columns": (7, 8)},
    ),
    ("conv_values", {"value_kernel": (4, 4, 3, 64)}),
  ],
)
def test_weights_of_each_variant(keras_api, variant, shapes):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(variant=variant)
  layer.build((None, None, None, 3))
  found = {w.name.split("/")[-1].split(":")[0]: tuple(w.shape) for w in layer.trainable_weights}
  assert found == {"query_kernel": (3, 64), "key_kernel": (3, 64), **shapes}


@both_bindings
@each_variant
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (None, None)], ids=str)
def test_output_size_after_pooling_matches_the_convolutional_stem(keras_api, variant, size):
  keras, binding = BINDINGS[keras_api]
  inputs = keras.Input([*size, 3])
  x = binding.AttentionStem(8, num_heads=2, variant=variant)(inputs)
  assert tuple(x.shape) == (None, *size, 8)
  model = keras.Model(inputs, keras.layers.MaxPooling2D(4, padding="same")(x))
  for height, width in [size] if size[0] else [(8, 8), (7, 5), (1, 2)]:
    assert model(images(2, height, width, 3)).shape == (2, -(-height // 4), -(-width // 4), 8)


@both_bindings
@pytest.mark.parametrize("size", [(6, 9), (5, 7)], ids=str)
def test_pooling_windows_are_the_attention_blocks(keras_api, size):
  """Changing the pixels of one block changes one pixel of the pooled output."""
  keras, binding = BINDINGS[keras_api]
  layer, pool = binding.AttentionStem(8, num_heads=2), keras.layers.MaxPooling2D(4, padding="same")
  x = images(1, *size, 3)
  before = np.array(pool(layer(x)))
  blocks = np.indices(size)
  for axis in range(2):
    blocks[axis] = [
      [stem_oracle.block_and_position(p, size[axis], 4)[0] for p in line] for line in blocks[axis]
    ]
  for index in np.ndindex(*before.shape[1:3]):
    own = (blocks[0] == index[0]) & (blocks[1] == index[1])
    after = np.array(pool(layer(np.where(own[None, :, :, None], x + 1.0, x))))
    changed = np.abs(after - before).max(axis=(0, 3)) > 0
    assert set(zip(*np.nonzero(changed), strict=True)) == {index}


@needs_tf_keras
@pytest.mark.parametrize("mode", ["eager", "unknown", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["mixture", "standalone"])
@pytest.mark.parametrize("size", [(8, 12), (7, 5)], ids=str)
def test_gradients_do_not_depend_on_the_device(variant, dtype, mode, size):
  """A GPU uses absorbed projections, without queries, keys and values."""
  _, binding = BINDINGS["tf_keras"]
  layer = binding.AttentionStem(16, num_heads=2, num_mixtures=3, variant=variant, dtype=dtype)
  x = tf.cast(images(2, *size, 3), dtype)
  upstream = tf.cast(images(2, *size, 16, seed=1), dtype)
  layer(x)

  def run(x, upstream):
    with tf.GradientTape() as tape:
      tape.watch(x)
      output = layer(x)
    weights = layer.trainable_weights
    return [output, *tape.gradient(output, [x, *weights], upstream)]

  expected = run(x, upstream)
  function = run
  if mode != "eager":
    shape = [None] * 3 if mode == "unknown" else x.shape[:3]
    signature = [tf.TensorSpec([*shape, c], dtype) for c in (3, 16)]
    function = tf.function(run, input_signature=signature, jit_compile=mode == "jit")
  with ops.use_target_device("GPU"):
    found = function(x, upstream)
  for a, b in zip(found, expected, strict=True):
    a, b = (tf.cast(t, tf.float32).numpy() for t in (a, b))
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


@both_bindings
@each_variant
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_every_precision_policy(keras_api, variant, policy):
  _, binding = BINDINGS[keras_api]
  x = images(2, 6, 9, 3)
  full = binding.AttentionStem(8, num_heads=2, variant=variant)
  expected = np.array(full(x))
  layer = binding.AttentionStem(8, num_heads=2, variant=variant, dtype=policy)
  layer.build(x.shape)
  layer.set_weights(full.get_weights())
  compute = policy.removeprefix("mixed_")
  for jit_compile in (False, True):
    result = tf.function(lambda x: layer(x), jit_compile=jit_compile)(tf.cast(x, compute))
    assert result.dtype == compute
    assert np.abs(tf.cast(result, tf.float32) - expected).max() < 0.03 * np.abs(expected).max()


@both_bindings
@each_variant
def test_empty_batch(keras_api, variant):
  """A replica can receive an empty batch at the end of an evaluation."""
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(8, num_heads=2, variant=variant)
  for size in ((8, 8), (None, None)):
    function = tf.function(layer, input_signature=[tf.TensorSpec([None, *size, 3])])
    assert function(tf.zeros([0, 8, 8, 3])).shape == (0, 8, 8, 8)


@both_bindings
def test_initial_value_matrices_differ_and_have_the_scale_of_the_query_kernel(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem()
  layer.build((None, None, None, 3))
  query, *values = (np.array(k) for k in (layer.query_kernel, *np.array(layer.value_kernels)))
  deviations = [np.std(v) for v in values]
  np.testing.assert_allclose(deviations, np.std(query), rtol=0.2)
  assert len({float(v[0, 0]) for v in (query, *values)}) == 9


@both_bindings
def test_initial_mixture_weights_differ_by_position_and_are_not_saturated(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem()
  layer.build((None, None, None, 3))
  weights = np.array(layer.mixture_weights())
  assert weights.shape == (4, 4, 8)
  np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)
  assert np.std(weights, axis=(0, 1)).max() > 0.02
  assert np.mean(weights.max(axis=-1)) < 0.7


@both_bindings
def test_value_and_embedding_initializers(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(
    8, num_heads=2, value_initializer="ones", embedding_initializer="zeros", embedding_dim=6
  )
  layer.build((None, None, None, 3))
  np.testing.assert_array_equal(layer.value_kernels, np.ones((8, 3, 8)))
  np.testing.assert_array_equal(layer.mixture_vectors, np.zeros((8, 6)))
  np.testing.assert_allclose(layer.mixture_weights(), np.full((4, 4, 8), 0.125))


@both_bindings
def test_regularizers_apply_to_projections_and_embeddings(keras_api):
  keras, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(
    8, num_heads=2, kernel_regularizer=keras.regularizers.L2(0.5), embedding_regularizer="l2"
  )
  layer.build((None, 4, 4, 3))
  kernels = (layer.query_kernel, layer.key_kernel, layer.value_kernels)
  embeddings = (layer.embedding_rows, layer.embedding_columns, layer.mixture_vectors)
  expected = sum(0.5 * np.sum(np.square(k)) for k in kernels)
  expected += sum(0.01 * np.sum(np.square(e)) for e in embeddings)
  np.testing.assert_allclose(sum(map(float, layer.losses)), expected, rtol=1e-5)


@needs_tf_keras
def test_bindings_agree():
  x = images(2, 9, 6, 3)
  for variant in VARIANTS:
    layers = [
      binding.AttentionStem(8, num_heads=2, variant=variant) for _, binding in BINDINGS.values()
    ]
    for layer in layers:
      layer.build(x.shape)
    layers[1].set_weights(layers[0].get_weights())
    np.testing.assert_array_equal(layers[0](x), layers[1](x))


@both_bindings
def test_mixture_weights_require_the_mixture_variant(keras_api):
  _, binding = BINDINGS[keras_api]
  layer = binding.AttentionStem(variant="conv_values")
  with pytest.raises(
    ValueError, match="expected variant='mixture', received variant='conv_values'"
  ):
    layer.mixture_weights()


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"filters": 12, "num_heads": 8}, "multiple of num_heads.*nearest multiples are 8 and 16"),
    ({"filters": 0}, "positive ints"),
    ({"block_size": 0}, "block_size must be a positive int, or a pair.*received 0"),
    ({"block_size": (4, 2)}, r"block_size must be a positive int, or a pair.*received \(4, 2\)"),
    ({"num_mixtures": 0}, "num_mixtures must be a positive int"),
    ({"embedding_dim": 0}, "embedding_dim must be a positive int"),
    ({"variant": "conv"}, "variant must be one of.*received 'conv'"),
    ({"filters": 12, "variant": "standalone"}, "even head width.*12.*= 3.*multiple of 8"),
  ],
)
def test_bad_arguments(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.AttentionStem(**arguments)


@both_bindings
def test_bad_inputs(keras_api):
  keras, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match="expected ndim=4"):
    binding.AttentionStem(8)(keras.Input([8, 3]))
  with pytest.raises(ValueError, match="needs to know the channels"):
    binding.AttentionStem(8)(keras.Input([8, 8, None]))
  layer = binding.AttentionStem(8)
  layer(keras.Input([8, 8, 3]))
  with pytest.raises(ValueError, match=r"axis -1|was built for"):
    layer(keras.Input([8, 8, 4]))
