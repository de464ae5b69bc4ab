"""Important calls pass through few modules, so that a reader can follow them."""

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.keras import LocalSelfAttention2D
from tests.walks import modules_executed

MAX_MODULES = 9


def assert_short_walk(modules, expected):
  """Compares the modules of a walk with those expected, and their number with the limit."""
  assert modules == expected
  assert len(modules) <= MAX_MODULES


@pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)
def test_from_the_layer_to_the_compiled_kernel():
  layer = LocalSelfAttention2D(16, num_heads=2)
  images = tf.random.stateless_normal([1, 8, 8, 16], [0, 1])
  with ops.use_implementation("fused"):
    layer(images)  # builds the layer and loads the kernels
    modules = modules_executed(lambda: layer(images))
  assert_short_walk(
    modules,
    [
      "layers/keras_mixin",
      "layers/local_self_attention",
      "ops/xla_barriers",
      "ops/local_attention",
      "ops/checks",
      "ops/dispatch",
      "ops/compiled/fused",
      "ops/compiled/xla_custom_call",
      "compat/tensorflow",
    ],
  )
