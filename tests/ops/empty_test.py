"""Empty dimensions give empty outputs and gradients of zero, in every mode."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.stem.absorbed_attention import block_attention_2d_absorbed

# The axes of [B, H, W, N, D] whose size is 0. Only the first three may be unknown in a graph.
EMPTY = [(0,), (1,), (2,), (3,), (4,), (0, 1), (1, 2)]
IMPLEMENTATIONS = ops.available_implementations()


def _local(implementation, packed, shape):
  """Returns (function, its arguments, the shape of the output)."""
  batch, height, width, heads, depth = shape
  maps = [tf.zeros([batch, height, width, 3, heads, depth])] if packed else [tf.zeros(shape)] * 3
  tensors = [*maps, tf.ones([3, depth // 2]), tf.fill([5, depth // 2], 2.0)]
  arguments = {"kernel_size": (3, 5), "implementation": implementation}
  if not packed:
    return functools.partial(ops.local_attention_2d, **arguments), tensors, shape
  attend = functools.partial(ops.local_attention_2d_qkv_packed, pool_size=2, **arguments)
  return attend, tensors, [batch, -(-height // 2), -(-width // 2), heads, depth]


def _block(shape):
  tables = [tf.ones([7, shape[4] // 2])] * 2
  return ops.block_attention_2d, [*[tf.zeros(shape)] * 3, *tables], shape


def _absorbed(implementation, shape):
  size, (heads, depth) = shape[:3], shape[3:]

  def attend(*tensors):
    with ops.use_implementation(implementation):
      return block_attention_2d_absorbed(*tensors)

  weights = [tf.ones([3, heads, depth])] * 2 + [tf.ones([16, 3, heads, depth])]
  return attend, [tf.zeros([*size, 3]), *weights], [*size, heads * depth]


def _mixture(shape):
  size, (width, filters) = shape[:3], shape[3:]
  weights = [tf.ones([2, 3, filters]), *[tf.ones([4, width])] * 2, tf.ones([2, width])]
  return ops.spatial_value_mixture, [tf.zeros([*size, 3]), *weights], [*size, filters]


def _global(shape):
  tables = [tf.ones([max(2 * size - 1, 0), shape[4]]) for size in shape[1:3]]
  return ops.global_attention_2d, [*[tf.zeros(shape)] * 3, *tables], shape


OPERATIONS = {
  **{name: functools.partial(_local, name, False) for name in IMPLEMENTATIONS},
  **{f"{name}, packed": functools.partial(_local, name, True) for name in IMPLEMENTATIONS},
  "block_attention_2d": _block,
  "absorbed": functools.partial(_absorbed, "auto"),
  "absorbed, stock": functools.partial(_absorbed, "blocked"),
  "spatial_value_mixture": _mixture,
  "global_attention_2d": _global,
}


def _compute(operation):
  def compute(*tensors):
    *sources, upstream = map(tf.identity, tensors)
    with tf.GradientTape() as tape:
      tape.watch(sources)
      output = operation(*sources)
    return [output, *tape.gradient(output, sources, upstream)]

  return compute


def _assert_zeros(compute, tensors, output_shape, axes):
  upstream = tf.zeros(output_shape)
  for result, like in zip(compute(*tensors, upstream), [upstream, *tensors], strict=True):
    np.testing.assert_array_equal(result, tf.zeros_like(like), err_msg=str(axes))


def _shape(axes):
  return [0 if axis in axes else size for axis, size in enumerate((2, 5, 6, 2, 4))]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_empty_dimensions(name, mode):
  for axes in EMPTY:
    operation, tensors, output_shape = OPERATIONS[name](_shape(axes))
    compute = _compute(operation)
    compute = tf.function(compute, autograph=False) if mode == "graph" else compute
    _assert_zeros(compute, tensors, output_shape, axes)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.thorough
def test_empty_dimensions_that_are_unknown(name, jit):
  """One function for all sizes of the batch and the image, 0 included."""
  operation, tensors, output_shape = OPERATIONS[name](_shape(()))
  images = 1 if "packed" in name or "absorbed" in name or "mixture" in name else 3
  known = [None] * 3
  specs = [tf.TensorSpec([*known, *t.shape[3:]]) for t in tensors[:images]]
  specs += [tf.TensorSpec(None if "global" in name else t.shape) for t in tensors[images:]]
  specs += [tf.TensorSpec([*known, *output_shape[3:]])]
  compute = tf.function(
    _compute(operation), input_signature=specs, jit_compile=jit, autograph=False
  )
  for axes in [(0,), (1,), (2,), (1, 2)]:
    _, tensors, output_shape = OPERATIONS[name](_shape(axes))
    _assert_zeros(compute, tensors, output_shape, axes)


@pytest.mark.parametrize("axes", EMPTY, ids=str)
@pytest.mark.parametrize("pixels", [None, np.zeros([0, 2], np.int32)], ids=["all", "no pixels"])
def test_weights(axes, pixels):
  shape = _shape(axes)
  tables = [tf.ones([3, shape[4] // 2])] * 2
  weights = ops.local_attention_weights(
    tf.zeros(shape), tf.zeros(shape), *tables, kernel_size=3, pixels=pixels
  )
  places = shape[1:3] if pixels is None else [0]
  np.testing.assert_allclose(weights, np.full([shape[0], *places, shape[3], 3, 3], 1 / 9), 1e-6)
