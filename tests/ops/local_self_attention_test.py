"""Local self-attention with its projections, against the oracle and separate operations."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops import oracle

WINDOW = {"kernel_size": (3, 5), "border": "zero", "scale": 0.5}
HEADS, DEPTH, CHANNELS = 2, 4, 6
FILTERS = HEADS * DEPTH


def arguments(dtype=tf.float32, *, key=True, bias="all", tables=True, size=(2, 5, 7), seed=0):
  """Returns inputs, kernels, biases and tables; those that are absent are None."""
  generator = np.random.default_rng(seed)

  def normal(*shape, cast=dtype):
    return tf.cast(tf.constant(generator.normal(size=shape)), cast)

  inputs = normal(*size, CHANNELS)
  kernels = [normal(CHANNELS, FILTERS) / 2 for _ in range(3)]
  biases = [normal(FILTERS) for _ in range(3)]
  rows, columns = (normal(k, DEPTH // 2, cast=tf.float32) for k in WINDOW["kernel_size"])
  if bias != "all":
    biases = [biases[0] if bias == "query" else None, None, None]
  if not key:
    kernels[1] = biases[1] = None
  return inputs, kernels, biases, [rows, columns] if tables else [None, None]


def separate(inputs, kernels, biases, tables, *, pool_size=1, **window):
  """The specification: three products, attention, and average pooling."""
  parts = [
    None
    if kernel is None
    else tf.reshape(
      tf.tensordot(inputs, kernel, 1) + (0 if bias is None else bias),
      [*inputs.shape[:3], HEADS, DEPTH],
    )
    for kernel, bias in zip(kernels, biases, strict=True)
  ]
  output = ops.local_attention_2d(*parts, *tables, **window)
  if pool_size == 1:
    return output
  flat = tf.reshape(output, [*inputs.shape[:3], FILTERS])
  pooled = tf.nn.avg_pool2d(flat, pool_size, pool_size, "SAME")
  return tf.reshape(pooled, [*pooled.shape[:3], HEADS, DEPTH])


def joined(inputs, kernels, biases, tables, **window):
  return ops.local_self_attention_2d(
    inputs, kernels, *tables, biases=biases, num_heads=HEADS, **window
  )


def value_and_gradients(function, inputs, kernels, biases, tables):
  sources = [x for x in [inputs, *kernels, *biases, *tables] if x is not None]
  with tf.GradientTape() as tape:
    tape.watch(sources)
    output = function(inputs, kernels, biases, tables)
    weights = tf.reshape(tf.cast(tf.range(tf.size(output)) % 7, output.dtype), tf.shape(output))
    loss = tf.reduce_sum(output * weights)
  return [output, *tape.gradient(loss, sources)]


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize(("key", "bias"), [(True, "all"), (True, "none"), (False, "query")])
def test_matches_the_oracle(key, bias, border):
  inputs, kernels, biases, tables = arguments(tf.float64, key=key, bias=bias)
  window = {**WINDOW, "border": border}
  found = joined(inputs, kernels, biases, tables, implementation="reference", **window)
  parts = [
    None
    if kernel is None
    else (inputs.numpy() @ kernel.numpy() + (0 if bias is None else bias.numpy())).reshape(
      [*inputs.shape[:3], HEADS, DEPTH]
    )
    for kernel, bias in zip(kernels, biases, strict=True)
  ]
  expected = oracle.local_attention(*parts, *(table.numpy() for table in tables), **window)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", ops.available_implementations())
@pytest.mark.parametrize(
  ("mode", "options", "pool_size"),
  [
    ("jit", {}, 2),
    ("graph", {"bias": "query"}, 1),
    ("eager", {"key": False, "bias": "none"}, 1),
    ("eager", {"tables": False}, 2),
  ],
  ids=["biases, pooled", "query bias", "no keys", "no tables, pooled"],
)
def test_output_and_gradients_match_separate_products(implementation, mode, options, pool_size):
  tensors = arguments(**options)
  window = {**WINDOW, "pool_size": pool_size}
  expected = value_and_gradients(
    functools.partial(separate, implementation="reference", **window), *tensors
  )
  function = functools.partial(joined, implementation=implementation, **window)

  def compute():
    return value_and_gradients(function, *tensors)

  for device in ("CPU", "GPU") if implementation == "blocked" else ("CPU",):
    with ops.use_target_device(device):
      run = compute if mode == "eager" else tf.function(compute, jit_compile=mode == "jit")
      for one, other in zip(run(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)


def test_kernels_are_cast_to_the_dtype_of_the_inputs():
  inputs, kernels, biases, tables = arguments()
  narrow = tf.cast(inputs, tf.bfloat16)
  found = joined(narrow, kernels, biases, tables, **WINDOW)
  assert found.dtype == tf.bfloat16
  expected = joined(inputs, kernels, biases, tables, **WINDOW)
  np.testing.assert_allclose(tf.cast(found, tf.float32), expected, atol=0.1)


def test_sizes_may_be_unknown():
  _, kernels, biases, tables = arguments()
  function = tf.function(
    lambda inputs: joined(inputs, kernels, biases, tables, pool_size=2, **WINDOW),
    input_signature=[tf.TensorSpec([None, None, None, CHANNELS])],
  )
  for size in ((1, 4, 6), (3, 5, 2), (0, 3, 3)):
    inputs = arguments(size=size)[0]
    found = function(inputs)
    assert found.shape == [size[0], -(-size[1] // 2), -(-size[2] // 2), HEADS, DEPTH]
    if size[0]:
      expected = separate(inputs, kernels, biases, tables, pool_size=2, **WINDOW)
      np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_exports_have_a_product_for_each_kernel():
  inputs, kernels, biases, tables = arguments()
  function = tf.function(lambda x: joined(x, kernels, biases, tables, **WINDOW))

  def wide_products():
    graph = function.get_concrete_function(inputs).graph
    shapes = [op.outputs[0].shape for op in graph.get_operations() if op.type == "MatMul"]
    return [shape[1] for shape in shapes if shape[0] == 2 * 5 * 7]

  with ops.tracing_for_export(quantizable=False):
    assert wide_products() == [FILTERS] * 3
  function = tf.function(lambda x: joined(x, kernels, biases, tables, **WINDOW))
  assert wide_products() == [3 * FILTERS]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"inputs": tf.zeros([5, 7, 6])}, r"inputs must have shape \[B, H, W, C\].*\(5, 7, 6\)"),
    ({"inputs": tf.zeros([1, 5, 7, 6], tf.int32)}, "floating point; received int32"),
    ({"kernels": [tf.zeros([6, 8])] * 2}, "kernels must be those of query, key and value"),
    ({"kernels": [tf.zeros([5, 8])] * 3}, r"each of shape \[6, None\].*received \[\(5, 8\)"),
    ({"kernels": [tf.zeros([6, 8])] * 2 + [tf.zeros([6, 4])]}, "one number of filters"),
    ({"kernels": [None] + [tf.zeros([6, 8])] * 2}, "only that of the key may be None"),
    ({"num_heads": 3}, "multiple of num_heads; received 8 filters and num_heads=3"),
    ({"biases": [tf.zeros([4])] * 3}, r"biases must be .* each of shape \[8\]"),
    (
      {"kernels": [tf.zeros([6, 8]), None, tf.zeros([6, 8])], "biases": [tf.zeros([8])] * 3},
      "received a key bias",
    ),
  ],
)
def test_invalid_arguments(change, message):
  given = {"inputs": tf.zeros([1, 5, 7, 6]), "kernels": [tf.zeros([6, 8])] * 3, "num_heads": 2}
  with pytest.raises(ValueError, match=message):
    ops.local_self_attention_2d(**given | change)
