"""Chunks change neither results nor shapes, on any device."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops.blocked import chunked_map
from sasa_tf.ops.types import DEVICES
from sasa_tf.ops.xla_barriers import use_target_device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunks", [1, 2, 6])
def test_chunks_are_computed_sequentially(chunks, device):
  left = tf.random.stateless_normal([6, 3, 4], [0, 1])
  right = tf.random.stateless_normal([6, 4, 2], [0, 2])
  shared = tf.random.stateless_normal([1, 3, 2], [0, 3])
  sizes = []

  def function(pair, absent, shared):
    assert absent is None
    sizes.append(pair[0].shape[0])
    product = tf.matmul(*pair) + shared
    return {
      "product": product,
      "absent": None,
      "sums": tf.reduce_sum(product, axis=[1, 2]),
      "total": tf.reduce_sum(product, axis=0, keepdims=True),
    }

  like = {
    "product": tf.TensorSpec([6, 3, 2]),
    "absent": None,
    "sums": tf.TensorSpec([6]),
    "total": tf.TensorSpec([chunks, 3, 2]),
  }
  arguments = [(left, right), None, shared]
  with use_target_device(device):
    computed = tf.function(
      lambda arguments: chunked_map.chunked_map(function, arguments, like, chunks)
    )(arguments)
  assert sizes == [6 // chunks]
  expected = function(*arguments)
  assert computed["absent"] is None
  for name in ("product", "sums"):
    assert computed[name].shape == expected[name].shape
    np.testing.assert_allclose(computed[name], expected[name], rtol=1e-5, atol=1e-6)
  assert computed["total"].shape == [chunks, 3, 2]
  total = tf.reduce_sum(computed["total"], axis=0, keepdims=True)
  np.testing.assert_allclose(total, expected["total"], rtol=1e-5)


def test_chunks_are_stored_flat_on_tpu():
  maps = tf.TensorSpec([6, 3, 4])

  def loop_shapes(device):
    with use_target_device(device):
      traced = tf.function(
        lambda x: chunked_map.chunked_map(tf.abs, [x], tf.TensorSpec([6, 3, 4]), 2)
      ).get_concrete_function(maps)
    (loop,) = [o for o in traced.graph.get_operations() if "TensorListStack" in o.type]
    return loop.outputs[0].shape.as_list()

  assert loop_shapes("CPU") == [2, 3, 3, 4]
  assert loop_shapes("TPU") == [2, 3, 12]
