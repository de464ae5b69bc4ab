"""Attention layers exported for TensorFlow: three projections instead of one that is split."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.layers.bindings import BINDINGS, both_bindings

LAYERS = [
  {},
  {"use_bias": True, "scale": 0.5},
  {"content": False},
  {"strides": 2, "positions": "none"},
  {"locality_strength": 2.0, "kernel_size": 3},
]


def _traced(layer, shape, **options):
  with ops.tracing_for_export(**options):
    return tf.function(layer).get_concrete_function(tf.TensorSpec(shape))


@both_bindings
@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("arguments", LAYERS, ids=str)
def test_exported_layers_equal_the_layer(keras_api, batch, arguments):
  layer = BINDINGS[keras_api][1].LocalSelfAttention2D(16, num_heads=4, **arguments)
  images = np.random.default_rng(0).normal(size=[2, 10, 9, 6]).astype(np.float32)
  layer.build(images.shape)
  for weight in layer.weights:  # biases are initially zero
    weight.assign(tf.convert_to_tensor(weight) + 0.1)
  expected = layer(images)
  exported = _traced(layer, [batch, 10, 9, 6], quantizable=False)
  np.testing.assert_allclose(exported(tf.constant(images)), expected, atol=1e-5)


@pytest.mark.parametrize(
  "options", [{"for_openvino": True}, {"product_columns": 16}, {"quantizable": True}, {}]
)
def test_only_float_exports_for_tensorflow_split_no_projection(options):
  layer = BINDINGS["keras"][1].LocalSelfAttention2D(16, num_heads=4)
  layer.build([None, 8, 8, 6])

  def projections(**options):
    graph = _traced(layer, [2, 8, 8, 6], **{"quantizable": False, **options}).graph
    nodes = (node for node in graph.get_operations() if node.type in ("MatMul", "BatchMatMulV2"))
    return [node for node in nodes if 6 in node.inputs[1].shape[:1]]

  assert len(projections(**options)) == (1 if options else 3)
