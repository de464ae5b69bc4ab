"""The backward pass rematerializes what it should, in XLA programs and in TensorFlow graphs."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.blocked import chunked_map
from sasa_tf.ops.stem.absorbed_attention import block_attention_2d_absorbed
from sasa_tf.ops.types import DEVICES
from sasa_tf.ops.xla_barriers import recompute_barrier
from tests.ops.programs import products

SHAPE = (2, 12, 12, 2, 4)


def attention_step(*tensors):
  *sources, upstream = tensors
  with tf.GradientTape() as tape:
    tape.watch(sources)
    output = ops.local_attention_2d(
      *sources, kernel_size=3, border="mask", implementation="blocked"
    )
  return tape.gradient(output, sources, upstream)


def attention_inputs():
  maps = [tf.random.stateless_normal(SHAPE, [0, n]) for n in range(4)]
  tables = [tf.random.stateless_normal([3, 2], [1, n]) for n in range(2)]
  return [*maps[:3], *tables, maps[3]]


@pytest.mark.parametrize(("device", "logits"), [("CPU", 2), ("GPU", 3), ("TPU", 3)])
def test_compiled_backward_pass_recomputes_logits(device, logits):
  with ops.use_target_device(device):
    shapes = products(attention_step, *attention_inputs())
  # Blocks of 4 x 4 queries and tiles of 6 x 6 keys, or one block of the image's size; the product
  # q.k, and the gradient's product of the same shape.
  sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes]
  assert sum(size == max(sizes) for size in sizes) == logits, shapes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("jit", [False, True])
def test_results_do_not_change(device, jit):
  tensors = attention_inputs()
  expected = attention_step(*tensors)
  with ops.use_target_device(device):
    found = tf.function(attention_step, jit_compile=jit, autograph=False)(*tensors)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_infinities_do_not_spread():
  """An infinite upstream gradient of one query does not affect other queries."""
  *sources, upstream = attention_inputs()
  upstream = tf.tensor_scatter_nd_update(upstream, [[0, 0, 0, 0, 0]], [-np.inf])
  with ops.use_target_device("GPU"):
    query, *_ = tf.function(attention_step, jit_compile=True, autograph=False)(*sources, upstream)
  assert np.isfinite(query[1]).all()
  assert np.isfinite(query[0, 5:]).all()


def test_control_dependency_outside_xla():
  @tf.function
  def later(earlier, tensor):
    return recompute_barrier([earlier], [tensor])

  with ops.use_target_device("GPU"):
    graph = later.get_concrete_function(tf.TensorSpec([2]), tf.TensorSpec([3])).graph
  (waiting,) = [o for o in graph.get_operations() if o.control_inputs and o.type == "Identity"]
  assert waiting.control_inputs[0].name == "earlier"
  assert waiting.inputs[0].name == "tensor:0"


@pytest.mark.parametrize("limit", [2**22, 2**12])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_stem_saves_no_intermediates_on_tpu(monkeypatch, positions, jit, limit):
  """With one chunk for all images, and with one chunk per image."""
  monkeypatch.setattr(chunked_map, "_TPU_LOGITS", limit)
  shapes = [[4, 8, 8, 3], [3, 2, 8], [3, 2, 8], [16, 3, 2, 8], *[[7, 4]] * 2 * positions]
  shapes.append([4, 8, 8, 16])
  tensors = [tf.random.stateless_normal(shape, [2, n]) for n, shape in enumerate(shapes)]

  def step(*tensors):
    *sources, upstream = tensors
    with tf.GradientTape() as tape:
      tape.watch(sources)
      output = block_attention_2d_absorbed(*sources)
    return [output, *tape.gradient(output, sources, upstream)]

  expected = step(*tensors)
  with ops.use_target_device("TPU"):
    compiled = tf.function(step, jit_compile=jit, autograph=False)
    for one, other in zip(compiled(*tensors), expected, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    operations = compiled.get_concrete_function(*tensors).graph.get_operations()
  assert sum("While" in o.type for o in operations) == (0 if limit == 2**22 else 2)
